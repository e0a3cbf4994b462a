import assert from "node:assert/strict";
import { test } from "node:test";
import { createKeeper } from "../../../static/js/rate/keeper.js";

const config = { user_id: 7, files: "v1", worker_url: "/rate/worker.js" };

function start({ refuses = false } = {}) {
  const said = [];
  const timers = [];
  const listeners = {};
  const registration = { installing: null, waiting: null, active: { postMessage: (data) => said.push(data) }, addEventListener: (type, hear) => (listeners[type] = hear) };
  const asked = [];
  const workers = { register: async (...given) => (asked.push(given), refuses ? Promise.reject(new Error("forbidden")) : registration) };
  const here = { pictures: ["/images/a/"] };
  const keeper = createKeeper({ config, page: "/rate/one/", pictures: () => here.pictures, workers, schedule: (work) => timers.push(work) });
  const pass = () => timers.shift()();
  return { keeper, said, timers, asked, here, pass, registration, listeners };
}

test("the worker hears of new pictures only, and a while later", async () => {
  const { keeper, said, timers, asked, here, pass } = start();
  keeper.note();
  keeper.note();
  assert.deepEqual([timers.length, said.length, asked.length], [1, 0, 0]);
  await pass();
  assert.deepEqual(asked, [["/rate/worker.js", { scope: "/rate/", updateViaCache: "none" }]]);
  assert.deepEqual(said, [{ files: "v1", user: "7", page: "/rate/one/", pictures: ["/images/a/"] }]);
  here.pictures = [];
  keeper.note();
  await pass();
  assert.equal(said.length, 1);
  here.pictures = ["/images/b/"];
  keeper.note();
  await pass();
  assert.deepEqual([said.length, said[1].pictures, asked.length], [2, ["/images/b/"], 1]);
});

test("the first word is said with no picture there, too, and again to a newer worker", async () => {
  const { keeper, said, here, pass, registration, listeners } = start();
  here.pictures = [];
  keeper.note();
  await pass();
  assert.equal(said.length, 1);
  registration.installing = { postMessage: (data) => said.push(`newer: ${data.files}`) };
  listeners.updatefound();
  assert.deepEqual(said.slice(1).map((one) => one.files ?? one), ["newer: v1", "v1"]);
});

test("where workers are missing or refused the page goes on without", async () => {
  const { keeper, said, timers, pass, asked } = start({ refuses: true });
  for (let count = 0; count < 3; count += 1) {
    keeper.note();
    await pass();
  }
  keeper.note(); // It is not asked for ever.
  assert.deepEqual([said.length, asked.length, timers.length], [0, 3, 0]);
  const none = createKeeper({ config, page: "/rate/one/", pictures: () => [], workers: undefined, schedule: () => assert.fail() });
  none.note();
  assert.equal(timers.length, 0);
});
