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

test("the oldest that nobody wants are let go, the wanted never, however many", async () => {
  const prefetch = createPrefetch({ keep: 3, load: async (url) => url });
  for (const url of ["a", "b", "c", "d", "e"]) prefetch.want([item(url)]);
  assert.equal(prefetch.size(), 4);
  await prefetch.ready(item("e"));
  assert.equal(prefetch.pictures(item("a")), null);
  prefetch.want(["f", "g", "h", "i"].map((url) => item(url)));
  assert.equal(prefetch.size(), 7);
  await turn();
  assert.deepEqual(prefetch.pictures(item("e")), ["e"]);
});

/** What is fetched and loaded, with a gate for each fetch: open(url) lets it through, fail(url) does not. */
function watch(options = {}) {
  const said = [];
  const gates = {};
  const pauses = [];
  const prefetch = createPrefetch({
    load: async (url) => (said.push(`load ${url}`), `<${url}>`),
    fetch: (url) => (said.push(`fetch ${url}`), new Promise((done, fail) => (gates[url] = { done, fail }))),
    decode: async (picture) => (said.push(`decode ${picture}`), `<${picture}>`),
    wait: () => new Promise((done) => pauses.push(done)),
    ...options,
  });
  return { prefetch, said, pauses, open: async (url) => (gates[url].done(url), await turn()), fail: async (url) => (gates[url].fail(new Error("no")), await turn()) };
}
const items = [..."abcdef"].map((url) => item(url));

test("those that come late are fetched two at a time, and decoded once they are next", async () => {
  const { prefetch, said, open } = watch();
  prefetch.want(items, 2);
  assert.deepEqual(said, ["load a", "load b", "fetch c", "fetch d"]);
  await open("c");
  assert.deepEqual([said.at(-1), prefetch.pictures(items[2]), prefetch.countHere(items)], ["fetch e", null, 3]);
  prefetch.want(items.slice(1), 3);
  await turn();
  assert.deepEqual([said.slice(5), prefetch.pictures(items[2])], [["decode c"], ["<c>"]]);
  assert.equal(prefetch.pictures(items[3]), null);
  await open("d");
  assert.deepEqual(said.filter((word) => word.endsWith(" d")), ["fetch d", "decode d"]);
  assert.deepEqual(prefetch.pictures(items[3]), ["<d>"]);
});

test("one that somebody waits for is decoded at once, and loaded where its fetch fails", async () => {
  const { prefetch, said, open, fail } = watch();
  prefetch.want(items, 0);
  await open("a");
  assert.deepEqual(await prefetch.ready(items[0]), ["<a>"]);
  const waiting = prefetch.ready(items[1]);
  await fail("b");
  assert.deepEqual(await waiting, ["<b>"]);
  assert.deepEqual(said.filter((word) => word.endsWith(" b")), ["fetch b", "load b"]);
});

test("after a failure the late ones pause, and what failed comes after the others", async () => {
  const { prefetch, said, pauses, open, fail } = watch();
  prefetch.want(items, 0);
  await fail("a");
  await open("b");
  assert.deepEqual([said, pauses.length], [["fetch a", "fetch b"], 1]);
  prefetch.want(items, 0);
  assert.equal(said.length, 2);
  pauses[0]();
  await turn();
  for (const url of "cdef") await open(url);
  assert.deepEqual(said.slice(2), ["fetch c", "fetch d", "fetch e", "fetch f", "fetch a"]);
  assert.equal(prefetch.countHere(items), 0);
  await open("a");
  assert.equal(prefetch.countHere(items), 6);
});
