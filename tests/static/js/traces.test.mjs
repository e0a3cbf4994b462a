import assert from "node:assert/strict";
import { test } from "node:test";
import { createMemoryStore } from "../../../static/js/rate/outbox.js";
import { forgetAll, forgetOthers } from "../../../static/js/rate/traces.js";

const NAMES = ["atelier-rating-files-1", "atelier-rating-of-7-one", "atelier-rating-of-71-one", "atelier-rating-of-8-two", "of-somebody-else"];

async function start() {
  const store = createMemoryStore();
  for (const user of ["7", "8", "judged-7", "judged-71", "judged-8", "held-7", "held-8"]) await store.put({ id: `row-${user}`, user });
  const names = new Set(NAMES);
  const caches = { keys: async () => [...names], delete: async (name) => names.delete(name) };
  const rows = async () => (await store.others("", "")).map((id) => id.slice(4));
  return { store, caches, names, rows };
}

test("whoever comes finds nothing of others but what these have not sent yet", async () => {
  const { store, caches, names, rows } = await start();
  await forgetOthers({ user: "7", store, caches });
  assert.deepEqual(await rows(), ["7", "8", "judged-7", "held-7"]);
  assert.deepEqual([...names], ["atelier-rating-files-1", "atelier-rating-of-7-one", "of-somebody-else"]);
});

test("signing out leaves nothing but what is not sent, and no worker", async () => {
  const { store, caches, names, rows } = await start();
  const gone = [];
  await forgetAll({ store, caches, workers: { getRegistration: async (scope) => ({ unregister: async () => gone.push(scope) }) } });
  assert.deepEqual([await rows(), [...names], gone], [["7", "8"], ["of-somebody-else"], ["/rate/"]]);
});

test("a browser that has neither caches nor workers, or forbids them, forgets the rest", async () => {
  const { store, rows } = await start();
  await forgetOthers({ user: "7", store, caches: undefined });
  await forgetAll({ store, caches: undefined, workers: { getRegistration: () => Promise.reject(new Error("forbidden")) } });
  assert.deepEqual(await rows(), ["7", "8"]);
});
