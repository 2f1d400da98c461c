// What every peer does with a frame: the `counter` and the `board` of the host's handlers, as
// plain objects. Each peer brings its own sockets and its own way to reach many of them.
//
// The frames are those of docs/protocol.md. There are no components, no schemas, no turns
// and no limits here: this is the work itself.

/** The actors of one process. */
export class Actors {
  #counters = new Map();
  #publish;
  #store;

  /**
   * @param publish tells all subscribers of a topic: `(topic, message) => void`
   * @param store what keeps a count, if anything does: `{ read(id), write(id, count) }`
   */
  constructor(publish, store) {
    this.#publish = publish;
    this.#store = store;
  }

  /**
   * Handles a message; the answer, if there is one.
   * @param client what the message came from: `{ subscribe(topic), unsubscribe(topic) }`
   */
  receive(message, client) {
    switch (message.type) {
      case "rpc":
        return this.#call(message);
      case "state:sub":
        client.subscribe(topic("state", message));
        return this.#snapshot(message);
      case "state:unsub":
        client.unsubscribe(topic("state", message));
        return undefined;
      case "event:sub":
        client.subscribe(topic("events", message));
        return undefined;
      case "event:unsub":
        client.unsubscribe(topic("events", message));
        return undefined;
      default:
        return { type: "error", code: "frame.unknown-type", message: `a frame of type ${message.type}` };
    }
  }

  #call(message) {
    const { id, actor, actorId, method, input } = message;
    switch (`${actor}.${method}`) {
      case "counter.increment": {
        if (!Number.isInteger(input?.by)) {
          return { type: "rpc:result", id, error: "expected an integer `by`" };
        }
        return { type: "rpc:result", id, result: this.#increment(message, input.by) };
      }
      case "counter.value":
        return { type: "rpc:result", id, result: this.#counter(actorId).count };
      case "board.publish": {
        const { number, text } = input;
        const payload = { number, text };
        this.#publish(topic("events", message), { type: "event", actor, actorId, event: "posted", payload });
        return { type: "rpc:result", id };
      }
      default:
        return { type: "rpc:result", id, error: `no method ${actor}.${method}` };
    }
  }

  #increment(message, by) {
    const { actor, actorId } = message;
    const counter = this.#counter(actorId);
    counter.count += by;
    this.#store?.write(actorId, counter.count);
    const from = counter.version;
    counter.version += 1;
    if (counter.watched) {
      const patches = [{ op: "replace", path: "/count", value: counter.count }];
      const version = counter.version;
      this.#publish(topic("state", message), { type: "state:patch", actor, actorId, patches, epoch: "peer", from, version });
    }
    return counter.count;
  }

  #snapshot({ actor, actorId }) {
    if (actor !== "counter") {
      return { type: "state:snapshot", actor, actorId, state: {}, epoch: "peer", version: 0 };
    }
    const counter = this.#counter(actorId);
    counter.watched = true;
    const { count, version } = counter;
    return { type: "state:snapshot", actor, actorId, state: { count }, epoch: "peer", version };
  }

  #counter(actorId) {
    let counter = this.#counters.get(actorId);
    if (counter === undefined) {
      const count = this.#store?.read(actorId) ?? 0;
      counter = { count, version: 0, watched: false };
      this.#counters.set(actorId, counter);
    }
    return counter;
  }
}

/** What a client is told first. */
export const WELCOME = { type: "welcome", clientId: "peer" };

function topic(kind, { actor, actorId }) {
  return `${kind}:${actor}:${actorId}`;
}
