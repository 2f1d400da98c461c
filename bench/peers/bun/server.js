// Bun, with its own publish and subscribe.

import { Actors, WELCOME } from "../actors.js";

const actors = new Actors((topic, message) => server.publish(topic, JSON.stringify(message)));

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    if (server.upgrade(request)) return undefined;
    return new Response("expected a WebSocket", { status: 426 });
  },
  websocket: {
    open(socket) {
      socket.send(JSON.stringify(WELCOME));
    },
    message(socket, text) {
      // A socket of Bun is a client as it is: it has `subscribe` and `unsubscribe`.
      const answer = actors.receive(JSON.parse(text), socket);
      if (answer !== undefined) socket.send(JSON.stringify(answer));
    },
  },
});
console.log(`listening on http://127.0.0.1:${server.port}`);
