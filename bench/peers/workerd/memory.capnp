# Nothing is kept.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .room),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);

const room :Workerd.Worker = (
  modules = [
    (name = "room.js", esModule = embed "room.js"),
    (name = "actors.js", esModule = embed "../actors.js"),
    (name = "topics.js", esModule = embed "../topics.js"),
  ],
  compatibilityDate = "2026-11-01",
  durableObjectNamespaces = [(className = "Room", uniqueKey = "room", enableSql = true)],
  durableObjectStorage = (inMemory = void),
  bindings = [
    (name = "ROOM", durableObjectNamespace = "Room"),
  ],
);
