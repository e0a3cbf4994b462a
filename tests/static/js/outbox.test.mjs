import assert from "node:assert/strict";
import { test } from "node:test";
import { backOff, createMemoryStore, createOutbox } from "../../../static/js/rate/outbox.js";

let counter = 0;
const judgment = (assignment = 1, action = "answer") => ({ id: `j${(counter += 1)}`, assignment, action, answers: {} });
const turn = () => new Promise((done) => setImmediate(done));

/** A server that keeps what it got, and can be told to fail. */
function createFakeServer() {
  const stored = new Map();
  const server = { stored, calls: [], mode: "well", async send(judgments) {
    server.calls.push(judgments.map((one) => one.id));
    if (server.mode === "offline") throw new TypeError("Failed to fetch");
    if (typeof server.mode === "number") return { ok: false, status: server.mode, retryAfter: server.retryAfter };
    const results = judgments.map((one) => {
      if (server.refuse?.(one)) return { id: one.id, status: "rejected", reason: "This campaign is closed." };
      const status = stored.has(one.id) ? "duplicate" : "stored";
      stored.set(one.id, one);
      return { id: one.id, status };
    });
    if (server.mode === "lost answer") throw new TypeError("connection reset");
    return { ok: true, status: 200, results: server.mode === "half" ? results.slice(0, 1) : results };
  } };
  return server;
}

/** Timers that run only when the test says so. */
function createTimers() {
  const timers = [];
  return { timers, schedule(work, ms) {
    const timer = { work, ms };
    timers.push(timer);
    return () => timers.splice(timers.indexOf(timer), 1);
  }, async run() {
    for (const timer of timers.splice(0)) await timer.work();
  } };
}

function start({ store = createMemoryStore(), server = createFakeServer(), user = "7", ...more } = {}) {
  const clock = createTimers();
  const settled = [];
  const outbox = createOutbox({ user, store, send: server.send, schedule: clock.schedule, random: () => 1, onSettled: (row, result) => settled.push([row.id, result.status]), ...more });
  return { outbox, store, server, clock, settled };
}

test("a judgment leaves only when its id is acknowledged", async () => {
  const { outbox, store, server } = start();
  const one = judgment();
  outbox.add(one);
  assert.equal(outbox.snapshot().waiting, 1);
  await outbox.settled();
  assert.equal((await store.all("7")).length, 1);
  await outbox.flush();
  assert.equal(outbox.snapshot().waiting, 0);
  assert.deepEqual(await store.all("7"), []);
  assert.deepEqual([...server.stored.keys()], [one.id]);
});

test("adding touches neither network nor waits", () => {
  const { outbox, server } = start();
  assert.equal(outbox.add(judgment()), undefined);
  assert.equal(server.calls.length, 0);
});

test("without the role everything stays, is tried now and then, and is sent once the role is back", async () => {
  const server = createFakeServer();
  const { send } = server;
  server.send = async () => ({ ok: false, status: 403, isRoleLost: true });
  const { outbox, store, clock } = start({ server: { ...server, send: (rows) => server.send(rows) } });
  outbox.add(judgment());
  await outbox.flush();
  assert.deepEqual([outbox.snapshot().waiting, outbox.snapshot().problem, (await store.all("7")).length], [1, "no-role", 1]);
  assert.equal(clock.timers[0].ms, 60000);
  server.send = send;
  await clock.run();
  assert.deepEqual([outbox.snapshot().waiting, outbox.snapshot().problem, await store.all("7")], [0, null, []]);
});

test("offline: everything stays, the pauses grow, and order is kept on return", async () => {
  const { outbox, server, clock } = start();
  server.mode = "offline";
  const rows = [judgment(1), judgment(1, "undo"), judgment(1)];
  for (const row of rows) outbox.add(row);
  const pauses = [];
  await outbox.flush();
  for (let index = 0; index < 8; index += 1) {
    pauses.push(clock.timers[0].ms);
    await clock.run();
  }
  assert.deepEqual(pauses, [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
  assert.deepEqual([outbox.snapshot().waiting, outbox.snapshot().problem], [3, "offline"]);
  server.mode = "well";
  outbox.retry();
  await clock.run();
  assert.deepEqual(server.calls.at(-1), rows.map((row) => row.id));
  assert.deepEqual([outbox.snapshot().waiting, outbox.snapshot().problem], [0, null]);
});

test("a batch that the network takes never is sent in smaller ones, in order, until it does", async () => {
  const refused = [];
  const server = createFakeServer();
  const { send } = server;
  server.send = async (judgments) => {
    if (judgments.length <= 12) return send(judgments);
    refused.push(judgments.length);
    throw new TypeError("Failed to fetch");
  };
  const { outbox, clock } = start({ server });
  const all = Array.from({ length: 50 }, (_, number) => judgment(number));
  for (const one of all) outbox.add(one);
  for (let times = 0; times < 20 && outbox.snapshot().waiting; times += 1) await clock.run();
  assert.deepEqual([...server.stored.keys()], all.map((one) => one.id));
  assert.deepEqual([outbox.snapshot().waiting, outbox.snapshot().problem], [0, null]);
  // What went through is the measure for the rest, until nothing waits.
  assert.deepEqual(refused, [50, 50, 25]);
  for (const one of Array.from({ length: 20 }, (_, number) => judgment(100 + number))) outbox.add(one);
  await outbox.flush();
  assert.deepEqual(refused, [50, 50, 25, 20]);
});

test("the pause has jitter and never falls to nothing", () => {
  assert.equal(backOff(1, () => 0), 250);
  assert.equal(backOff(1, () => 1), 1000);
  assert.equal(backOff(30, () => 1), 60000);
});

test("an answer that got lost is asked for again, and the server calls it a duplicate", async () => {
  const { outbox, server, settled } = start();
  server.mode = "lost answer";
  const one = judgment();
  outbox.add(one);
  await outbox.flush();
  assert.equal(outbox.snapshot().waiting, 1);
  server.mode = "well";
  await outbox.flush();
  assert.deepEqual(settled, [[one.id, "duplicate"]]);
  assert.equal(server.stored.size, 1);
});

test("what a partial answer leaves out stays until it is named", async () => {
  const { outbox, server } = start();
  server.mode = "half";
  for (let index = 0; index < 3; index += 1) outbox.add(judgment(index));
  await outbox.flush();
  assert.equal(outbox.snapshot().waiting, 0);
  assert.deepEqual(server.calls.map((call) => call.length), [3, 2, 1]);
});

test("a refused judgment is shown with the reason until a person has read it, also after a reload", async () => {
  const { outbox, server, store } = start();
  server.refuse = (one) => one.assignment === 2;
  const [good, bad] = [judgment(1), judgment(2)];
  outbox.add(good);
  outbox.add(bad);
  await outbox.flush();
  const again = start({ store, server }).outbox;
  await again.open();
  assert.deepEqual(again.snapshot().rejected.map((row) => [row.id, row.reason]), [[bad.id, "This campaign is closed."]]);
  await again.flush();
  assert.equal(server.calls.length, 1, "it is not sent again");
  await again.dismiss(bad.id);
  assert.deepEqual(await store.all("7"), []);
});

test("a refusal that is not the server's own loses nothing: all is sent again", async () => {
  const { outbox, server, clock } = start();
  server.mode = 400;
  for (const assignment of [1, 2, 3, 4]) outbox.add(judgment(assignment));
  await outbox.flush();
  assert.deepEqual([outbox.snapshot().waiting, outbox.snapshot().rejected.length, outbox.snapshot().problem], [4, 0, "server"]);
  server.mode = "well";
  await clock.run();
  assert.deepEqual([outbox.snapshot().waiting, server.stored.size], [0, 4]);
});

test("what was refused can be sent again, and is kept as waiting until then", async () => {
  const { outbox, server, store, clock } = start();
  server.refuse = () => true;
  const one = judgment();
  outbox.add(one);
  await outbox.flush();
  server.refuse = null;
  await outbox.resend(one.id);
  assert.deepEqual((await store.all("7")).map((row) => [row.state, row.reason]), [["waiting", null]]);
  await clock.run();
  assert.deepEqual([outbox.snapshot().rejected, [...server.stored.keys()]], [[], [one.id]]);
});

test("one unreadable judgment does not hold up the others", async () => {
  const { outbox, server, store } = start();
  const bad = judgment(3);
  const send = server.send;
  server.send = async (rows) => (rows.some((row) => row.id === bad.id) ? { ok: false, status: 422, isRefusal: true, reason: "Unknown question." } : send(rows));
  const guarded = start({ store, server: { ...server, send: server.send } }).outbox;
  for (const row of [judgment(1), judgment(2), bad, judgment(4), judgment(5)]) guarded.add(row);
  await guarded.flush();
  assert.equal(server.stored.size, 4);
  assert.deepEqual(guarded.snapshot().rejected.map((row) => row.reason), ["Unknown question."]);
  assert.equal(outbox.snapshot().waiting, 0);
});

test("signed out: it says so, keeps everything, and goes on by itself", async () => {
  const { outbox, server, clock } = start();
  server.mode = 403;
  outbox.add(judgment());
  await outbox.flush();
  assert.deepEqual([outbox.snapshot().problem, outbox.snapshot().waiting], ["signed-out", 1]);
  server.mode = "well";
  await clock.run();
  assert.deepEqual([outbox.snapshot().problem, outbox.snapshot().waiting], [null, 0]);
});

test("a busy server names its own pause", async () => {
  const { outbox, server, clock } = start();
  Object.assign(server, { mode: 503, retryAfter: 7 });
  outbox.add(judgment());
  await outbox.flush();
  assert.deepEqual([clock.timers.map((timer) => timer.ms), outbox.snapshot().problem], [[7000], "server"]);
});

test("what an earlier visit left is sent by the next one, but only to the same person", async () => {
  const store = createMemoryStore();
  const { outbox, server } = start({ store });
  server.mode = "offline";
  outbox.add(judgment());
  await outbox.settled();
  const stranger = start({ store, user: "8" });
  await stranger.outbox.open();
  await stranger.outbox.flush();
  assert.equal(stranger.server.calls.length, 0);
  const next = start({ store });
  await next.outbox.open();
  assert.equal(next.outbox.snapshot().waiting, 1);
  await next.outbox.flush();
  assert.deepEqual([next.server.stored.size, (await store.all("7")).length], [1, 0]);
});

test("two tabs deliver each judgment once, and both know that it is saved", async () => {
  const store = createMemoryStore();
  const server = createFakeServer();
  let held = false;
  const lock = async (work) => {
    if (held) return;
    held = true;
    await work().finally(() => (held = false));
  };
  const [left, right] = [start({ store, server, lock }), start({ store, server, lock })];
  left.outbox.add(judgment(1));
  right.outbox.add(judgment(2));
  await Promise.all([left.outbox.settled(), right.outbox.settled()]);
  await Promise.all([left.outbox.flush(), right.outbox.flush()]);
  assert.equal(server.calls.flat().length, 2);
  await right.clock.run();
  assert.deepEqual([left.outbox.snapshot().waiting, right.outbox.snapshot().waiting, server.calls.flat().length], [0, 0, 2]);
});

test("what another tab delivered is no trouble of this one any more, and what is judged next is sent", async () => {
  const store = createMemoryStore();
  const server = createFakeServer();
  server.mode = "offline";
  const [left, right] = [start({ store, server }), start({ store, server })];
  left.outbox.add(judgment(1));
  await left.outbox.settled();
  await left.clock.run();
  await right.outbox.flush();
  assert.deepEqual([left.outbox.snapshot().problem, right.outbox.snapshot().problem], ["offline", "offline"]);
  server.mode = "well";
  await right.clock.run();
  await left.clock.run();
  assert.deepEqual([left.outbox.snapshot().problem, left.outbox.snapshot().waiting], [null, 0]);
  left.outbox.add(judgment(2));
  await left.outbox.settled();
  await left.clock.run();
  assert.equal(server.stored.size, 2);
});

test("a refusal of the last row that waits is an answer: the server is there", async () => {
  const answers = [Promise.reject(new TypeError("gone")), { ok: false, status: 422, isRefusal: true, reason: "No." }];
  const { outbox, clock } = start({ server: { send: async () => answers.shift() } });
  outbox.add(judgment());
  await outbox.settled();
  await clock.run();
  assert.equal(outbox.snapshot().problem, "offline");
  await clock.run();
  assert.deepEqual([outbox.snapshot().problem, outbox.snapshot().rejected.length], [null, 1]);
});

test("a storage that takes rows again keeps also those that it refused", async () => {
  const store = createMemoryStore();
  const { put } = store;
  let isFull = true;
  store.put = (row) => (isFull ? Promise.reject(new Error("QuotaExceededError")) : put(row));
  const { outbox } = start({ store });
  outbox.add(judgment(1));
  await outbox.settled();
  assert.equal(outbox.snapshot().kept, "tab");
  isFull = false;
  outbox.add(judgment(2));
  while (outbox.snapshot().kept === "tab") await turn();
  assert.equal((await store.all("7")).length, 2);
});

test("a browser without storage keeps the rows in the tab, says so, and still delivers", async () => {
  const broken = { all: async () => { throw new Error("no"); }, put: async () => { throw new Error("no"); }, remove: async () => { throw new Error("no"); } };
  const { outbox, server } = start({ store: broken });
  outbox.add(judgment());
  await outbox.settled();
  assert.deepEqual([outbox.snapshot().kept, outbox.snapshot().waiting], ["tab", 1]);
  await outbox.flush();
  assert.deepEqual([outbox.snapshot().waiting, server.stored.size], [0, 1]);
});

test("assignments on their way are known, those undone are not among them", () => {
  const { outbox } = start();
  const rows = [judgment(1), judgment(2), judgment(2, "undo"), judgment(3), judgment(3, "undo"), judgment(3)];
  for (const row of rows) outbox.add(row);
  assert.deepEqual([...outbox.pendingAssignments()].sort(), [1, 3]);
  assert.deepEqual([...outbox.chainEnds()], [[1, rows[0].id], [2, rows[2].id], [3, rows[5].id]]);
});

test("a judgment made while a batch is on its way follows in the next", async () => {
  const { outbox, server, clock } = start();
  const send = server.send;
  let late = false;
  const slow = createOutbox({ user: "7", store: createMemoryStore(), schedule: clock.schedule, send: async (rows) => {
    if (!late) {
      late = true;
      slow.add(judgment(2));
    }
    await turn();
    return send(rows);
  } });
  slow.add(judgment(1));
  await slow.flush();
  assert.deepEqual([server.calls.map((call) => call.length), slow.snapshot().waiting, outbox.snapshot().waiting], [[1, 1], 0, 0]);
});

test("an answer about other rows than those that were sent is not asked for again at once", async () => {
  const { outbox, clock } = start({ send: async () => ({ ok: true, status: 200, results: [{ id: "of somebody else", status: "stored" }] }) });
  outbox.add(judgment());
  const pauses = [];
  for (let attempt = 0; attempt < 3; attempt += 1) {
    await clock.run();
    assert.equal(clock.timers.length, 1);
    pauses.push(clock.timers[0].ms);
  }
  assert.deepEqual([pauses, outbox.snapshot().problem], [[1000, 2000, 4000], "server"]);
});

test("what will stand of the own campaign once all has arrived is known", () => {
  const { outbox } = start({ campaign: "c" });
  const rows = [judgment(1), judgment(2), judgment(2, "undo"), judgment(3), judgment(3, "undo"), judgment(3)];
  for (const row of rows) outbox.add(row);
  assert.deepEqual(outbox.unsentJudgments().map(({ id }) => id), [rows[0].id, rows[5].id]);
});

test("nothing of another campaign is among what will stand of this one", async () => {
  const store = createMemoryStore();
  const of = (campaign) => start({ store, campaign }).outbox;
  of("d").add(judgment(1));
  await turn();
  const outbox = of("c");
  await outbox.open();
  assert.deepEqual([outbox.unsentJudgments(), outbox.snapshot().waiting], [[], 1]);
});
