import assert from "node:assert/strict";
import { test } from "node:test";
import { createHeld } from "../../../static/js/rate/held.js";
import { createMemoryStore } from "../../../static/js/rate/outbox.js";

const HOUR = 3600 * 1000;

function start(options = {}) {
  const store = options.store ?? createMemoryStore();
  const clock = { time: 1e12 };
  const timers = [];
  const schedule = (work) => {
    timers.push(work);
    return () => timers.splice(timers.indexOf(work), 1);
  };
  const open = (more = {}) => createHeld({ user: "7", store, campaign: "one", now: () => clock.time, schedule, ...more });
  const item = (assignment, hours = 1) => ({ assignment, expiresAt: hours && clock.time + hours * HOUR });
  return { store, clock, timers, open, held: open(), item };
}

const numbers = async (held) => (await held.read())?.items.map((one) => one.assignment) ?? null;

test("what is in hand is there for the next visit, of this person and campaign only", async () => {
  const { held, open, item, timers } = start();
  held.note(() => ({ items: [item(1), item(2)], progress: { done: 3 } }));
  held.note(() => ({ items: [item(2)], progress: { done: 4 } }));
  assert.equal(timers.length, 1); // Several changes are written together, as they stand by then.
  await timers[0]();
  assert.deepEqual((await open().read()).progress, { done: 4 });
  assert.deepEqual(await numbers(open()), [2]);
  assert.deepEqual([await numbers(open({ campaign: "two" })), await numbers(open({ user: "8" }))], [null, null]);
});

test("what must not be missed is written at once, and what waits when the page may go", async () => {
  const { held, open, item, timers } = start();
  await held.note(() => ({ items: [item(1)], progress: {} }), true);
  assert.deepEqual(await numbers(open()), [1]);
  held.note(() => ({ items: [item(5)], progress: {} }));
  await held.flush();
  assert.deepEqual([await numbers(open()), timers.length], [[5], 0]);
  await held.flush(); // Nothing has changed since.
  assert.deepEqual(await numbers(open()), [5]);
});

test("leases that have run out are still held, and said to be late, and nothing is after a day", async () => {
  const { held, open, item, clock, store } = start();
  await held.note(() => ({ items: [item(1), item(2, 3), item(3, null)], progress: {} }), true);
  assert.equal((await open().read()).isLate, false);
  clock.time += 2 * HOUR;
  assert.deepEqual(await numbers(open()), [1, 2, 3]);
  assert.equal((await open().read()).isLate, true);
  clock.time += 23 * HOUR;
  assert.equal(await open().read(), null);
  assert.deepEqual(await store.all("held-7"), []);
});

test("without storage nothing is held, and nothing fails", async () => {
  const refuse = async () => { throw new Error("forbidden"); };
  const { held, item } = start({ store: { all: refuse, put: refuse, remove: refuse } });
  await held.note(() => ({ items: [item(1)], progress: {} }), true);
  assert.equal(await held.read(), null);
});
