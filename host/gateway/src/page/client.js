// A small client for the protocol of a Tidegate host: one WebSocket that carries calls, the
// live state of actors and their events, and that comes back by itself when it breaks.
//
//   const connection = new Connection("ws://127.0.0.1:3000/ws");
//   connection.watchState("counter", "a", (state) => console.log(state.count));
//   const count = await connection.call("counter", "a", "increment", { by: 1 });

const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 8_000;

/** Why a call or a subscription failed: a stable `code` to act on, a `message` to show. */
export class Failure extends Error {
  constructor({ code, message, params = {} }) {
    super(message);
    this.code = code;
    this.params = params;
  }
}

/**
 * A connection to a host. Fires a `status` event when `status` changes, which is
 * `connecting`, `connected` or `reconnecting`.
 *
 * What is watched is subscribed to again after every reconnection. What a handler knows of
 * the connection itself, such as who joined a chat, is gone with the old one: do that again
 * whenever the status becomes `connected`.
 */
export class Connection extends EventTarget {
  status = "connecting";
  /** This connection's name, which handlers know too; changes with every reconnection. */
  id = null;
  /** Attempts to connect that failed in a row. */
  failures = 0;

  #url;
  #socket = null;
  #retry = null;
  #lastCall = 0;
  /** The calls that wait for their result, by id. */
  #calls = new Map();
  /** The watched states and events, by actor. */
  #states = new Map();
  #events = new Map();

  constructor(url) {
    super();
    this.#url = url;
    this.#connect();
    window.addEventListener("online", this.#connectNow);
  }

  /**
   * Calls a method and returns a promise of its result, `undefined` if it has none. Fails
   * with a `Failure`, and when the connection breaks before the answer came. An `AbortSignal`
   * asks the host to stop; the promise tells what became of the call all the same.
   */
  call(actor, actorId, method, input, { signal } = {}) {
    if (this.status !== "connected") {
      const message = "There is no connection to the host right now.";
      return Promise.reject(new Failure({ code: "client.offline", message }));
    }
    const id = String(++this.#lastCall);
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#send({ type: "rpc", id, actor, actorId, method, input });
      signal?.addEventListener("abort", () => this.#cancel(id), { once: true });
    });
  }

  /**
   * Calls `onState(state)` with the actor's state, now and after every change. The state
   * is updated in place: copy what you keep. `onRefused(failure)` hears why the host does
   * not show it, or shows it no longer.
   */
  watchState(actor, actorId, onState, onRefused = () => {}) {
    const watch = { actor, actorId, onState, onRefused, epoch: null, version: null };
    this.#states.set(keyOf(watch), watch);
    if (this.status === "connected") {
      this.#load(watch);
    }
  }

  /** Calls `onEvent(name, payload)` for every event of the actor. */
  watchEvents(actor, actorId, onEvent, onRefused = () => {}) {
    const watch = { actor, actorId, onEvent, onRefused };
    this.#events.set(keyOf(watch), watch);
    if (this.status === "connected") {
      this.#send({ type: "event:sub", actor, actorId });
    }
  }

  /** Closes for good. */
  close() {
    window.removeEventListener("online", this.#connectNow);
    clearTimeout(this.#retry);
    const socket = this.#socket;
    // A socket that is not this connection's any more is not listened to.
    this.#socket = null;
    socket?.close();
    this.#failCalls();
  }

  #connect() {
    this.#retry = null;
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => {
      if (socket === this.#socket) {
        this.#receive(JSON.parse(data));
      }
    });
    socket.addEventListener("close", () => {
      if (socket === this.#socket) {
        this.#lost();
      }
    });
  }

  /** Ends the wait for the next attempt: the browser says that there is a network again. */
  #connectNow = () => {
    if (this.#retry !== null) {
      clearTimeout(this.#retry);
      this.#connect();
    }
  };

  #lost() {
    this.failures += 1;
    this.#socket = null;
    this.#failCalls();
    // Twice as long each time. The random part keeps the clients of a host that restarted
    // from coming back all at the same moment.
    const wait = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(this.failures - 1, 10));
    this.#retry = setTimeout(() => this.#connect(), wait * (0.5 + Math.random() / 2));
    this.#setStatus("reconnecting");
  }

  #failCalls() {
    const message = "The connection was lost before the answer came.";
    for (const { reject } of this.#calls.values()) {
      reject(new Failure({ code: "client.lost", message }));
    }
    this.#calls.clear();
  }

  #setStatus(status) {
    this.status = status;
    this.dispatchEvent(new Event("status"));
  }

  #send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  #receive(frame) {
    switch (frame.type) {
      case "welcome":
        return this.#welcomed(frame);
      case "rpc:result":
        return this.#answered(frame);
      case "state:snapshot":
        return this.#replaceState(frame);
      case "state:patch":
        return this.#patchState(frame);
      case "event":
        return this.#events.get(keyOf(frame))?.onEvent(frame.event, frame.payload);
      case "error":
        return this.#refused(frame);
      // A frame of an unknown type is from a newer host.
    }
  }

  /** The first frame on every socket. */
  #welcomed({ clientId }) {
    this.id = clientId;
    this.failures = 0;
    for (const watch of this.#states.values()) {
      this.#comeBack(watch);
    }
    for (const { actor, actorId } of this.#events.values()) {
      this.#send({ type: "event:sub", actor, actorId });
    }
    this.#setStatus("connected");
  }

  #cancel(id) {
    if (this.#calls.has(id)) {
      this.#send({ type: "rpc:cancel", id });
    }
  }

  #answered({ id, result, error, failure }) {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (failure ?? error) {
      call?.reject(new Failure(failure ?? { code: "internal", message: error }));
    } else {
      call?.resolve(result);
    }
  }

  /** Asks for a snapshot, and for a patch of every change from then on. */
  #load(watch) {
    watch.version = null;
    watch.comesBack = false;
    this.#send({ type: "state:sub", actor: watch.actor, actorId: watch.actorId });
  }

  /** Asks for what was missed since the last state, if there is one. */
  #comeBack(watch) {
    const { actor, actorId, epoch, version } = watch;
    if (version === null) {
      return this.#load(watch);
    }
    watch.comesBack = true;
    this.#send({ type: "state:sub", actor, actorId, since: { epoch, version } });
  }

  #replaceState(frame) {
    const watch = this.#states.get(keyOf(frame));
    if (watch) {
      watch.state = frame.state;
      watch.epoch = frame.epoch;
      watch.version = frame.version;
      watch.comesBack = false;
      watch.onState(watch.state);
    }
  }

  #patchState(frame) {
    const watch = this.#states.get(keyOf(frame));
    // Without a version a snapshot is on its way, which has this change in it.
    if (!watch || watch.version === null) {
      return;
    }
    // The answer to what was missed may go on in another epoch.
    if (watch.comesBack) {
      watch.comesBack = false;
      watch.epoch = frame.epoch;
    }
    if (frame.epoch !== watch.epoch || frame.from > watch.version) {
      return this.#load(watch);
    }
    if (frame.version > watch.version) {
      watch.state = applyPatch(watch.state, frame.patches);
      watch.version = frame.version;
      watch.onState(watch.state);
    }
  }

  /** A subscription that the host refuses or ends; `params` name its actor. */
  #refused({ code, message, params = {} }) {
    const failure = new Failure({ code, message, params });
    const key = keyOf(params);
    this.#states.get(key)?.onRefused(failure);
    this.#events.get(key)?.onRefused(failure);
  }
}

function keyOf({ actor, actorId }) {
  return JSON.stringify([actor, actorId]);
}

/**
 * Applies the operations of a `state:patch` (RFC 6902, of which the host sends `add`,
 * `replace` and `remove`; and `str_ins`, if the address asks for it) and returns the new
 * state, which shares its parts with the old.
 */
export function applyPatch(state, operations) {
  for (const { op, path, value, pos, str } of operations) {
    if (path === "") {
      state = value;
      continue;
    }
    // A JSON pointer (RFC 6901): `/online/c1/name`, with `~1` for a slash, `~0` for a tilde.
    const members = path
      .slice(1)
      .split("/")
      .map((member) => member.replaceAll("~1", "/").replaceAll("~0", "~"));
    const last = members.pop();
    const parent = members.reduce(ownMember, state);
    if (op === "str_ins") {
      const text = ownMember(parent, last);
      parent[last] = text.slice(0, pos) + str + text.slice(pos);
    } else if (op !== "remove") {
      // The host adds to an array only at its end, so that one assignment does for all.
      // A definition, since to assign to a member called `__proto__` does something else.
      const plain = { writable: true, enumerable: true, configurable: true };
      Object.defineProperty(parent, last, { value, ...plain });
    } else if (Array.isArray(parent)) {
      parent.splice(Number(last), 1);
    } else {
      delete parent[last];
    }
  }
  return state;
}

function ownMember(parent, member) {
  if (!Object.hasOwn(parent, member)) {
    throw new Error(`a patch names \`${member}\`, which the state does not have`);
  }
  return parent[member];
}
