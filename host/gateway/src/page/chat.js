// The chat. A room is an actor: its state is what the page draws,
//
//   { "messages": [{ "id": 1, "author": "Ann", "text": "Hi", "sentAt": 1700000000000 }],
//     "online": { "c1-44684ded": { "name": "Ann", "since": 1700000000000 } } }
//
// its methods are `join`, `send` and `typing`, and of its events the page listens to `typing`.

import { element, make, showError, showMissing } from "./page.js";

/** How long somebody counts as typing after the last sign of it. */
const TYPING_SHOWN_MS = 3_000;
/** How often to tell the others. */
const TYPING_SENT_MS = 1_500;
/** How long to wait for the own name, which a connection that was lost may still hold. */
const NAME_HELD_MS = 30_000;
const NAME_RETRY_MS = 500;
/** How a private room refuses those who are not its members. */
const PRIVATE = ["chat.members-only", "chat.sign-in"];

const messages = element("messages");

/** The room that the page shows. */
let room = null;

/** Shows a room over this connection, and joins it if the tab has a name. */
export function enter(connection, id) {
  const entered = {
    connection,
    id,
    drawn: new Map(),
    typists: new Map(),
    typingSentAt: 0,
    isWatched: true,
  };
  room = entered;
  clear();
  // What one enters before the connection is there would be refused.
  showForm(null);
  watch();
  connection.addEventListener("status", () => {
    // Also after a reconnection: to the room this is another connection, without a name.
    if (connection.status === "connected" && room === entered) {
      rejoin(entered);
    }
  });
}

function watch() {
  const { connection, id } = room;
  room.isWatched = true;
  // The host refuses both alike, at once or, when the room has changed, later.
  connection.watchState("chat", id, draw, unwatched);
  connection.watchEvents("chat", id, (event, payload) => {
    if (event === "typing") {
      showTyping(payload.name);
    }
  });
}

/** The host shows the room no longer, or never did. */
function unwatched(failure) {
  room.isWatched = false;
  refused(failure);
}

function call(method, input) {
  return room.connection.call("chat", room.id, method, input);
}

function refused(failure) {
  const isMissing = failure.code === "actor.unknown";
  showMissing("chat", isMissing);
  if (PRIVATE.includes(failure.code)) {
    clear();
    messages.setAttribute("aria-busy", "false");
    // Whoever is invited meanwhile joins once more.
    element("name").value ||= ownName() ?? "";
    showForm("join-form");
    return showError("chat", "This room is private, and you are not one of its members.");
  }
  showError("chat", isMissing ? "" : failure.message);
}

// The name is the tab's, so that two tabs are two people.

const ownName = () => sessionStorage.getItem("tidegate.name");

element("join-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = element("name").value.trim();
  try {
    await call("join", { name });
    joined(name);
    element("text").focus();
  } catch (failure) {
    refused(failure);
  }
});

async function rejoin(entered) {
  const name = ownName();
  if (!name) {
    // Such as that there was no connection.
    showError("chat", "");
    return showForm("join-form");
  }
  const until = Date.now() + NAME_HELD_MS;
  const { connection, id } = entered;
  const session = connection.id;
  while (room === entered && connection.id === session && connection.status === "connected") {
    try {
      await connection.call("chat", id, "join", { name });
      return joined(name);
    } catch (failure) {
      if (failure.code === "client.lost") {
        return;
      }
      if (failure.code !== "chat.name-taken" || Date.now() > until) {
        element("name").value = name;
        showForm("join-form");
        return refused(failure);
      }
      element("joining").textContent = `Joining as ${name}…`;
      showForm("joining");
      await new Promise((resolve) => setTimeout(resolve, NAME_RETRY_MS));
    }
  }
}

function joined(name) {
  sessionStorage.setItem("tidegate.name", name);
  showError("chat", "");
  showForm("send-form");
  if (!room.isWatched) {
    watch();
  }
}

/** Shows one of what the foot of the chat may hold, or, by no name, nothing. */
function showForm(id) {
  for (const other of ["join-form", "joining", "send-form"]) {
    element(other).hidden = other !== id;
  }
}

// Saying something.

const text = element("text");

element("send-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = text.value;
  if (!said.trim()) {
    return;
  }
  // Empty at once, so that one can go on typing; what the room refuses comes back.
  text.value = "";
  room.typingSentAt = 0;
  try {
    await call("send", { text: said });
    showError("chat", "");
    messages.scrollTop = messages.scrollHeight;
  } catch (failure) {
    text.value ||= said;
    refused(failure);
  }
});

text.addEventListener("keydown", (event) => {
  // Not while an input method composes: there Enter picks a word.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    element("send-form").requestSubmit();
  }
});

text.addEventListener("input", () => {
  const now = Date.now();
  if (text.value.trim() && now - room.typingSentAt > TYPING_SENT_MS) {
    room.typingSentAt = now;
    // Nobody misses it when it fails.
    call("typing").catch(() => {});
  }
});

// Drawing.

function clear() {
  room.drawn.clear();
  messages.setAttribute("aria-busy", "true");
  messages.replaceChildren(element("no-messages"));
  element("no-messages").hidden = true;
  element("people").replaceChildren();
  for (const name of room.typists.keys()) {
    stopTyping(name);
  }
  drawTyping();
  showError("chat", "");
}

function draw(state) {
  showMissing("chat", false);
  drawPeople(Object.entries(state.online));
  drawMessages(state.messages);
}

function drawPeople(online) {
  const named = online
    .filter(([, { name }]) => name)
    .sort(([, a], [, b]) => a.since - b.since)
    .map(([id, { name }]) => make("li", "", id === room.connection.id ? `${name} (you)` : name));
  const silent = online.length - named.length;
  if (silent > 0) {
    named.push(make("li", "silent", `${silent} without a name`));
  }
  element("people").replaceChildren(...named);
}

/** Adds what is new and removes what is gone, so that a screen reader says only what is new. */
function drawMessages(all) {
  const atEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 40;
  const gone = new Set(room.drawn.keys());
  for (const message of all) {
    // Not the number alone: a room that was forgotten counts from 1 again.
    const key = `${message.id} ${message.sentAt}`;
    gone.delete(key);
    if (!room.drawn.has(key)) {
      const drawn = drawMessage(message);
      room.drawn.set(key, drawn);
      messages.append(drawn);
      stopTyping(message.author);
    }
  }
  for (const key of gone) {
    room.drawn.get(key).remove();
    room.drawn.delete(key);
  }
  element("no-messages").hidden = all.length > 0;
  messages.setAttribute("aria-busy", "false");
  if (atEnd) {
    messages.scrollTop = messages.scrollHeight;
  }
}

function drawMessage({ author, text, sentAt }) {
  const drawn = make("div", author === ownName() ? "message own" : "message");
  const by = make("p", "by");
  by.append(make("b", "", author), drawTime(new Date(sentAt)));
  drawn.append(by, make("p", "text", text));
  return drawn;
}

function drawTime(date) {
  const clock = { hour: "2-digit", minute: "2-digit" };
  const isToday = date.toDateString() === new Date().toDateString();
  const shown = isToday
    ? date.toLocaleTimeString([], clock)
    : date.toLocaleString([], { day: "numeric", month: "short", ...clock });
  const time = make("time", "", shown);
  time.dateTime = date.toISOString();
  time.title = date.toLocaleString();
  return time;
}

function showTyping(name) {
  const shownIn = room;
  clearTimeout(shownIn.typists.get(name));
  shownIn.typists.set(name, setTimeout(() => {
    shownIn.typists.delete(name);
    drawTyping();
  }, TYPING_SHOWN_MS));
  drawTyping();
}

function stopTyping(name) {
  clearTimeout(room.typists.get(name));
  room.typists.delete(name);
  drawTyping();
}

function drawTyping() {
  const names = [...room.typists.keys()];
  const verb = names.length === 1 ? "is" : "are";
  element("typing").textContent =
    names.length === 0 ? "" : `${new Intl.ListFormat("en").format(names)} ${verb} typing…`;
}
