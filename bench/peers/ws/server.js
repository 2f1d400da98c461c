// Node.js with the package `ws`. Whoever publishes encodes once and loops over the sockets.

import { WebSocketServer } from "ws";

import { Actors, WELCOME } from "../actors.js";
import { Topics } from "../topics.js";

const topics = new Topics();
const actors = new Actors((topic, message) => {
  // Bytes, so that the text is not encoded anew for each socket.
  const frame = Buffer.from(JSON.stringify(message));
  for (const socket of topics.of(topic)) socket.send(frame, { binary: false });
});

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false }, () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
server.on("connection", (socket) => {
  const client = topics.client(socket);
  socket.on("message", (bytes) => {
    const answer = actors.receive(JSON.parse(bytes), client);
    if (answer !== undefined) socket.send(JSON.stringify(answer));
  });
  socket.on("close", () => topics.forget(socket));
  socket.send(JSON.stringify(WELCOME));
});
