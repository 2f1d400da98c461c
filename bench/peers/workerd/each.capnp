# One object for each counter; nothing is kept.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "main", worker = .each)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);

const each :Workerd.Worker = (
  modules = [
    (name = "each.js", esModule = embed "each.js"),
    (name = "actors.js", esModule = embed "../actors.js"),
  ],
  compatibilityDate = "2026-11-01",
  durableObjectNamespaces = [(className = "Counter", uniqueKey = "counter", enableSql = true)],
  durableObjectStorage = (inMemory = void),
  bindings = [(name = "COUNTER", durableObjectNamespace = "Counter")],
);
