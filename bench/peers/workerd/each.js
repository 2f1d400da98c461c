// A Durable Object for each counter. A worker holds the socket and calls the objects.

import { DurableObject } from "cloudflare:workers";

import { WELCOME } from "actors.js";

export class Counter extends DurableObject {
  #count = 0;

  increment(by) {
    this.#count += by;
    return this.#count;
  }
}

export default {
  fetch(_request, environment) {
    const [theirs, socket] = Object.values(new WebSocketPair());
    socket.accept();
    socket.addEventListener("message", async ({ data }) => {
      const { id, actorId, input } = JSON.parse(data);
      const counter = environment.COUNTER.get(environment.COUNTER.idFromName(actorId));
      const result = await counter.increment(input.by);
      socket.send(JSON.stringify({ type: "rpc:result", id, result }));
    });
    socket.send(JSON.stringify(WELCOME));
    return new Response(null, { status: 101, webSocket: theirs });
  },
};
