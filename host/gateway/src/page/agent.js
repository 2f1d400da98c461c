// The agent. A conversation is an actor: its state is what the page draws,
//
//   { "messages": [{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Hel" }],
//     "status": "running", "error": null }
//
// and grows while `start` runs. The page asks for text that grows as `str_ins`: a word that
// the model adds costs a word.

import { element, make, showError, showMissing } from "./page.js";

const STATUS_TEXT = { running: "Answering…", stopped: "Stopped", failed: "Failed" };
const AUTHORS = { user: "Prompt", assistant: "Agent" };
/** With these the prompt was not taken: it goes back to where it was written. */
const NOT_TAKEN = ["client.offline", "agent.prompt-too-long"];

const conversation = element("conversation");
const prompt = element("prompt");

/** The conversation that the page shows. */
let shown = null;

/** Shows the conversation of a room over this connection. */
export function enter(connection, id) {
  const entered = { connection, id, drawn: [], asking: null };
  shown = entered;
  clear();
  drawControls("idle");
  showError("agent", "");
  connection.watchState("agent", id, (state) => draw(state), refused);
}

function refused(failure) {
  const isMissing = failure.code === "actor.unknown";
  showMissing("agent", isMissing);
  showError("agent", isMissing ? "" : failure.message);
}

// Asking, and stopping the answer.

element("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const asked = prompt.value;
  if (!asked.trim() || shown.asking) {
    return;
  }
  prompt.value = "";
  const entered = shown;
  entered.asking = new AbortController();
  drawControls();
  const { connection, id } = entered;
  let failure = null;
  try {
    const { signal } = entered.asking;
    await connection.call("agent", id, "start", { prompt: asked }, { signal });
  } catch (caught) {
    failure = caught;
  }
  entered.asking = null;
  if (entered !== shown) {
    return;
  }
  drawControls();
  if (failure && NOT_TAKEN.includes(failure.code)) {
    prompt.value ||= asked;
  }
  // Whoever stops an answer knows that it has stopped.
  if (failure && failure.code !== "call.cancelled") {
    refused(failure);
  }
});

prompt.addEventListener("keydown", (event) => {
  // Not while an input method composes: there Enter picks a word.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    element("ask-form").requestSubmit();
  }
});

element("stop").addEventListener("click", () => {
  shown.asking?.abort();
  prompt.focus();
});

element("forget").addEventListener("click", async () => {
  try {
    await shown.connection.call("agent", shown.id, "clear");
    showError("agent", "");
  } catch (failure) {
    refused(failure);
  }
});

// Drawing.

function clear() {
  shown.drawn = [];
  conversation.setAttribute("aria-busy", "true");
  conversation.replaceChildren(element("nothing-asked"));
  element("nothing-asked").hidden = true;
}

function draw({ messages, status, error }) {
  showMissing("agent", false);
  const atEnd = conversation.scrollHeight - conversation.scrollTop - conversation.clientHeight < 40;
  for (const gone of shown.drawn.splice(messages.length)) {
    gone.row.remove();
  }
  messages.forEach((message, index) => {
    const isLast = index === messages.length - 1;
    drawMessage(index, message, isLast && status === "running" && message.role === "assistant");
  });
  element("nothing-asked").hidden = messages.length > 0;
  // A screen reader waits for the whole answer.
  conversation.setAttribute("aria-busy", String(status === "running"));
  if (atEnd) {
    conversation.scrollTop = conversation.scrollHeight;
  }
  drawControls(status, messages.length > 0);
  showError("agent", status === "failed" ? error.message : "");
}

function drawMessage(index, message, isGrowing) {
  let drawn = shown.drawn[index];
  if (drawn?.role !== message.role) {
    const row = make("div", "");
    const by = make("p", "by");
    by.append(make("b", "", AUTHORS[message.role] ?? ""));
    const text = make("p", "text");
    const calls = make("p", "calls");
    row.append(by, text, calls);
    drawn?.row.replaceWith(row);
    drawn ?? conversation.append(row);
    drawn = { row, text, calls, name: by.firstChild, role: message.role, content: "" };
    shown.drawn[index] = drawn;
  }
  drawn.row.className = `message ${message.role}${isGrowing ? " growing" : ""}`;
  if (message.name) {
    drawn.name.textContent = message.name;
  }
  // Only what is new: the rest may be selected by somebody who reads.
  if (message.content.startsWith(drawn.content)) {
    drawn.text.append(message.content.slice(drawn.content.length));
  } else {
    drawn.text.textContent = message.content;
  }
  drawn.content = message.content;
  const calls = (message.toolCalls ?? []).map(({ name, arguments: given }) => `${name} ${given}`);
  drawn.calls.textContent = calls.join("\n");
}

/** Without arguments: as before, but for who is asking. */
function drawControls(status = shown.status, hasMessages = shown.hasMessages) {
  shown.status = status;
  shown.hasMessages = hasMessages;
  const pill = element("agent-status");
  pill.hidden = !(status in STATUS_TEXT);
  pill.dataset.status = status;
  pill.textContent = STATUS_TEXT[status] ?? "";
  element("forget").hidden = !hasMessages || status === "running";
  // Only who asked can stop the answer: a call is its caller's.
  element("ask").hidden = shown.asking !== null;
  element("stop").hidden = shown.asking === null;
}
