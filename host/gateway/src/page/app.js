// Where the page begins: opens the connection, shows how it is doing, and gives it to each
// of the page's parts.

import * as agent from "./agent.js";
import * as chat from "./chat.js";
import { Connection } from "./client.js";
import * as counter from "./counter.js";
import * as game from "./game.js";
import { element } from "./page.js";

const STATUS_TEXT = {
  connecting: "Connecting…",
  connected: "Connected",
  reconnecting: "Reconnecting…",
};
/** Attempts in a row that may fail before the page says that something is wrong. */
const PATIENCE = 4;

let connection = null;

/** The room that the address names behind its `#`. */
function roomInAddress() {
  const hash = location.hash.slice(1);
  try {
    return decodeURIComponent(hash) || "lobby";
  } catch {
    return hash;
  }
}

/** Browsers cannot set headers on a WebSocket: a token travels in its address. */
function address() {
  const url = new URL("/ws", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  // Text that grows comes as what is new of it.
  url.searchParams.set("patch", "str_ins");
  const token = new URLSearchParams(location.search).get("token");
  if (token) {
    url.searchParams.set("token", token);
  }
  return url;
}

/**
 * A connection is in a room until it closes, so each room gets one of its own. The counter
 * does not mind.
 */
function start() {
  connection?.close();
  connection = new Connection(address());
  connection.addEventListener("status", showStatus);
  showStatus();

  const room = roomInAddress();
  element("room").value = room;
  element("second-tab").href = location.href;
  document.title = `${room} · Tidegate`;
  chat.enter(connection, room);
  counter.show(connection);
  game.enter(connection, room);
  agent.enter(connection, room);
}

function showStatus() {
  const { status, failures } = connection;
  element("status").dataset.status = status;
  element("status").textContent = STATUS_TEXT[status];
  element("unreachable").hidden = failures < PATIENCE;
}

element("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = encodeURIComponent(element("room").value.trim() || "lobby");
});
window.addEventListener("hashchange", start);
start();
