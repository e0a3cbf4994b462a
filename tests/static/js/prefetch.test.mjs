import assert from "node:assert/strict";
import { test } from "node:test";
import { createPrefetch } from "../../../static/js/rate/prefetch.js";

const item = (...urls) => ({ images: urls.map((url) => ({ url })) });
const turn = () => new Promise((done) => setImmediate(done));

test("pictures are there once all of an item are decoded, in their order", async () => {
  const gates = {};
  const prefetch = createPrefetch({ load: (url) => new Promise((done) => (gates[url] = () => done(`<${url}>`))) });
  const pair = item("a", "b");
  prefetch.want([pair]);
  gates.b();
  await turn();
  assert.equal(prefetch.pictures(pair), null);
  gates.a();
  assert.deepEqual(await prefetch.ready(pair), ["<a>", "<b>"]);
  assert.deepEqual(prefetch.pictures(pair), ["<a>", "<b>"]);
});

test("each picture is loaded once, the first wanted first", async () => {
  const loaded = [];
  const prefetch = createPrefetch({ load: async (url) => (loaded.push(url), url) });
  prefetch.want([item("a"), item("b")]);
  prefetch.want([item("b"), item("c")]);
  await prefetch.ready(item("c"));
  assert.deepEqual(loaded, ["a", "b", "c"]);
});

test("a load that fails is tried again after a pause, and its failure is told in the end", async () => {
  let count = 0;
  const pauses = [];
  const prefetch = createPrefetch({ tries: 3, wait: async (ms) => void pauses.push(ms), load: async (url) => {
    count += 1;
    if (url === "never" || count < 3) throw new Error("no");
    return url;
  } });
  assert.deepEqual(await prefetch.ready(item("late")), ["late"]);
  await assert.rejects(prefetch.ready(item("never")));
  assert.equal(prefetch.pictures(item("never")), null);
  assert.deepEqual(pauses, [300, 900, 300, 900]);
});

test("a picture that failed before is tried anew when somebody waits for it", async () => {
  let working = false;
  const prefetch = createPrefetch({ tries: 1, load: async (url) => { if (!working) throw new Error("no"); return url; } });
  await assert.rejects(prefetch.ready(item("a")));
  working = true;
  assert.deepEqual(await prefetch.ready(item("a")), ["a"]);
});

test("the oldest are let go, the wanted never", async () => {
  const prefetch = createPrefetch({ keep: 3, load: async (url) => url });
  for (const url of ["a", "b", "c", "d"]) prefetch.want([item(url)]);
  assert.equal(prefetch.size(), 3);
  await prefetch.ready(item("d"));
  assert.equal(prefetch.pictures(item("a")), null);
  prefetch.want(["e", "f", "g", "h"].map((url) => item(url)));
  assert.equal(prefetch.size(), 4);
});
