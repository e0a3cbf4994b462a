import assert from "node:assert/strict";
import { test } from "node:test";
import { createHistory } from "../../../static/js/rate/history.js";
import { createMemoryStore } from "../../../static/js/rate/outbox.js";

const entry = (number, assignment = number) => ({ item: { assignment, prompt: `p${number}` }, record: { id: `j${number}`, assignment } });
const numbers = async (history) => (await history.read()).map(({ record }) => record.id);

function start(options = {}) {
  const store = options.store ?? createMemoryStore();
  const clock = { time: 1e12 };
  const open = (more = {}) => createHistory({ user: "7", store, campaign: "one", now: () => clock.time, ...options, ...more });
  return { store, clock, open, history: open() };
}

test("the last ones are there for the next visit, the newest first, and no others", async () => {
  const { history, open, store } = start({ limit: 3 });
  for (const number of [1, 2, 3, 4]) await history.add(entry(number));
  await history.remove({ id: "j3" });
  await history.add(entry(5));
  assert.equal((await store.all("judged-7")).length, 3);
  assert.deepEqual(await numbers(open()), ["j5", "j4", "j2"]);
  assert.deepEqual(await numbers(open({ campaign: "two" })), []);
  assert.deepEqual(await numbers(open({ user: "8" })), []);
});

test("they are none of the outbox's rows", async () => {
  const { history, store } = start();
  await history.add(entry(1));
  assert.deepEqual(await store.all("7"), []);
});

test("of one item that two tabs judged the newest is kept, and nothing that is a day old", async () => {
  const { history, open, clock, store } = start();
  await history.add(entry(1));
  clock.time += 24 * 3600 * 1000;
  await history.add(entry(2));
  await history.add(entry(3, 2));
  assert.deepEqual(await numbers(open()), ["j3"]);
  assert.equal((await store.all("judged-7")).length, 1);
});

test("without storage nothing is kept, and nothing fails", async () => {
  const refuse = async () => { throw new Error("forbidden"); };
  const { history } = start({ store: { all: refuse, put: refuse, remove: refuse } });
  await history.add(entry(1));
  await history.remove({ id: "j1" });
  assert.deepEqual(await history.read(), []);
});
