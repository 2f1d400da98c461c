// A Durable Object that holds the sockets and the actors. Sockets are accepted plainly, not
// for hibernation. With storage on disk a count is put there before the answer is sent, which
// the runtime holds back until the write is safe (the output gate).

import { DurableObject } from "cloudflare:workers";

import { Actors, WELCOME } from "actors.js";
import { Topics } from "topics.js";

export class Room extends DurableObject {
  #topics = new Topics();
  #actors;

  constructor(context, environment) {
    super(context, environment);
    const kv = context.storage.kv;
    const onDisk = {
      read: (id) => kv.get(id),
      write: (id, count) => kv.put(id, count),
    };
    const publish = (topic, message) => {
      const text = JSON.stringify(message);
      for (const socket of this.#topics.of(topic)) socket.send(text);
    };
    this.#actors = new Actors(publish, environment.DURABLE ? onDisk : undefined);
  }

  fetch() {
    const [theirs, socket] = Object.values(new WebSocketPair());
    socket.accept();
    const client = this.#topics.client(socket);
    socket.addEventListener("message", ({ data }) => {
      const answer = this.#actors.receive(JSON.parse(data), client);
      if (answer !== undefined) socket.send(JSON.stringify(answer));
    });
    socket.addEventListener("close", () => this.#topics.forget(socket));
    socket.send(JSON.stringify(WELCOME));
    return new Response(null, { status: 101, webSocket: theirs });
  }
}

export default {
  fetch(request, environment) {
    return environment.ROOM.get(environment.ROOM.idFromName("room")).fetch(request);
  },
};
