// The counter: the smallest thing that is shared. Its state is `{"count": 0}`.

import { element, showError, showMissing } from "./page.js";

/** The actor. `curl` in the README uses the same. */
const COUNTER = ["counter", "a"];

let connection = null;

/** Shows the counter over this connection. */
export function show(newConnection) {
  connection = newConnection;
  connection.watchState(...COUNTER, ({ count }) => {
    showMissing("counter", false);
    showError("counter", "");
    element("count").textContent = count;
  }, (failure) => {
    const isMissing = failure.code === "actor.unknown";
    showMissing("counter", isMissing);
    showError("counter", isMissing ? "" : failure.message);
  });
}

async function add(by) {
  try {
    // The new count comes as a patch, to this page as to all others.
    await connection.call(...COUNTER, "increment", { by });
    showError("counter", "");
  } catch (failure) {
    showError("counter", failure.message);
  }
}

element("increment").addEventListener("click", () => add(1));
element("decrement").addEventListener("click", () => add(-1));

// To `curl`, an address without a scheme is one of `http`.
const host = location.protocol === "http:" ? location.host : location.origin;
element("curl").textContent = `curl -d '{"by":1}' ${host}/actors/${COUNTER.join("/")}/increment`;
