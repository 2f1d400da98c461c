// Node.js with Socket.IO, over its WebSocket transport. Messages are the argument of the event
// `m`; a topic is a room.

import { createServer } from "node:http";
import { Server } from "socket.io";

import { Actors, WELCOME } from "../actors.js";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false });
const actors = new Actors((topic, message) => io.to(topic).emit("m", message));

io.on("connection", (socket) => {
  const client = {
    subscribe: (topic) => socket.join(topic),
    unsubscribe: (topic) => socket.leave(topic),
  };
  socket.on("m", (message) => {
    const answer = actors.receive(message, client);
    if (answer !== undefined) socket.emit("m", answer);
  });
  socket.emit("m", WELCOME);
});
http.listen(0, "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${http.address().port}`);
});
