// The contract in plain JavaScript, without an SDK: a counter that tells its subscribers of
// every tenth count. The exports are those of the world `actors-handler` in `wit/`.

import outbox from "tidegate:realtime/outbox@0.1.0";
import state from "tidegate:realtime/state@0.1.0";

const methods = {
  increment(input) {
    const document = JSON.parse(state.read());
    const before = document.count;
    document.count += input.by;
    state.replace(JSON.stringify(document));
    const tens = Math.floor(document.count / 10);
    if (tens > Math.floor(before / 10)) {
      outbox.emit("milestone", JSON.stringify({ count: tens * 10 }), { tag: "everyone" });
    }
    return JSON.stringify(document.count);
  },

  whisper(input, turn) {
    const to = { tag: "only", val: [turn.origin.val.connection] };
    outbox.emit("milestone", JSON.stringify({ count: input.count }), to);
  },

  refuse() {
    state.replace(JSON.stringify({ count: -1, visitors: 0 }));
    throw {
      code: "tally.refused",
      message: "not today",
      params: JSON.stringify({ day: "today" }),
      httpStatus: 409,
    };
  },

  crash() {
    state.replace(JSON.stringify({ count: -1, visitors: 0 }));
    return undefined.property;
  },
};

const count = { type: "object", properties: { count: { type: "integer" } }, required: ["count"] };

export const manifest = {
  describe() {
    return JSON.stringify({
      tidegate: "0.1",
      actors: {
        tally: {
          description: "A counter in plain JavaScript.",
          state: {
            schema: {
              type: "object",
              properties: { count: { type: "integer" }, visitors: { type: "integer" } },
              required: ["count", "visitors"],
            },
            initial: { count: 0, visitors: 0 },
          },
          methods: {
            increment: {
              input: { type: "object", properties: { by: { type: "integer" } }, required: ["by"] },
              output: { type: "integer" },
            },
            whisper: { input: count },
            refuse: {},
            crash: {},
          },
          events: { milestone: count },
          hooks: ["connect"],
        },
      },
    });
  },
};

export const actor = {
  invoke(turn, method, input) {
    return methods[method](input === undefined ? undefined : JSON.parse(input), turn);
  },
  activate() {},
  deactivate() {},
  connect() {
    const document = JSON.parse(state.read());
    document.visitors += 1;
    state.replace(JSON.stringify(document));
  },
  disconnect() {},
};
