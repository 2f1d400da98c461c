# Counts are kept in SQLite, on disk.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .room),
    # The generator names the folder: `--directory-path state=DIR`.
    (name = "state", disk = (writable = true)),
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
  durableObjectStorage = (localDisk = "state"),
  bindings = [
    (name = "ROOM", durableObjectNamespace = "Room"),
    (name = "DURABLE", json = "true"),
  ],
);
