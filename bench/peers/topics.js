// Who listens to which topic, for servers that leave it to the application.

/** Sets of sockets by topic. */
export class Topics {
  #subscribers = new Map();

  /** The sockets that subscribe to a topic. */
  of(topic) {
    return this.#subscribers.get(topic) ?? [];
  }

  /** A client that subscribes this socket. */
  client(socket) {
    return {
      subscribe: (topic) => {
        const sockets = this.#subscribers.get(topic) ?? new Set();
        this.#subscribers.set(topic, sockets.add(socket));
      },
      unsubscribe: (topic) => this.#subscribers.get(topic)?.delete(socket),
    };
  }

  /** Forgets a socket that has closed. */
  forget(socket) {
    for (const sockets of this.#subscribers.values()) sockets.delete(socket);
  }
}
