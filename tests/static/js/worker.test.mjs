import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

// A classic script, which Django puts what it knows before: here it is run as one, with a browser of our own around it.
const SOURCE = await readFile(new URL("../../../static/js/rate/worker.js", import.meta.url), "utf8");
const SITE = "https://atelier.example";
const FILES = [["/static/main.1a.js", "/static/main.js"], ["/static/main.1b.css", "/static/main.css"]];

function createCaches() {
  const stores = new Map();
  const pathOf = (key) => (typeof key === "string" ? new URL(key, SITE) : new URL(key.url)).href;
  const open = (name) => {
    if (!stores.has(name)) stores.set(name, new Map());
    const kept = stores.get(name);
    return {
      put: async (key, answer) => void (kept.delete(pathOf(key)), kept.set(pathOf(key), answer)),
      match: async (key) => kept.get(pathOf(key))?.clone(),
      delete: async (key) => kept.delete(pathOf(key)),
      keys: async () => [...kept.keys()].map((url) => ({ url })),
    };
  };
  return { stores, open: async (name) => open(name), has: async (name) => stores.has(name), keys: async () => [...stores.keys()], delete: async (name) => stores.delete(name) };
}

function page(words, { user = "7", files = "v1", date = "Fri, 27 Nov 2026 10:00:00 GMT" } = {}) {
  return new Response(words, { headers: { "X-Atelier-Rater": user, "X-Atelier-Files": files, Date: date } });
}

/** A worker whose server answers by `site`, path -> () -> answer; where there is none there is no connection. */
function start(site, { caches = createCaches(), version = "v1", files = FILES, usage = 0, onLine = true } = {}) {
  const heard = {};
  const asked = [];
  const self = {
    location: new URL(`${SITE}/rate/worker.js`),
    navigator: { onLine, storage: { estimate: async () => ({ usage, quota: 1e9 }) } },
    skipWaiting: () => asked.push("skipWaiting"),
    addEventListener: (type, hear) => (heard[type] = hear),
  };
  const fetch = async (request) => {
    const url = new URL(request.url ?? request, SITE);
    const path = url.pathname + url.search;
    asked.push(path);
    if (!site[path]) throw new TypeError("no connection");
    return site[path]();
  };
  new Function("self", "caches", "fetch", "FILES", "VERSION", "NOTICE", SOURCE)(self, caches, fetch, files, version, "<h1>No connection</h1>");

  async function dispatch(type, fields = {}) {
    const waits = [];
    let answer;
    heard[type]({ ...fields, waitUntil: (work) => waits.push(work), respondWith: (given) => (answer = given) });
    const given = await answer;
    await Promise.all(waits);
    return given;
  }

  const request = (path, { mode = "no-cors", method = "GET", client = "c1", opens = "" } = {}) => dispatch("fetch", { request: { url: new URL(path, SITE).href, mode, method }, clientId: client, resultingClientId: opens });
  return {
    caches,
    asked,
    site,
    install: () => dispatch("install"),
    activate: () => dispatch("activate"),
    say: (data) => dispatch("message", { data: { files: version, user: "7", page: `${SITE}/rate/one/`, pictures: [], ...data } }),
    open: (path, opens = "c1") => request(path, { mode: "navigate", opens }),
    request,
    goOffline: () => Object.keys(site).forEach((path) => delete site[path]),
    paths: () => Object.fromEntries([...caches.stores].map(([name, kept]) => [name, [...kept.keys()].map((url) => url.slice(SITE.length)).sort()])),
  };
}

const ok = (words) => () => new Response(words);
const withFiles = (site = {}) => ({ "/static/main.1a.js": ok("js"), "/static/main.1b.css": ok("css"), ...site });
const read = async (answer) => (await answer).text();

async function startWithPage(html = "page", site = {}, options = {}) {
  const worker = start(withFiles({ "/rate/one/": () => page(html), ...site }), options);
  await worker.install();
  await worker.open("/rate/one/");
  return worker;
}

test("a page comes from the server while that answers, with its files, and from here when it does not, with those of here", async () => {
  const worker = await startWithPage();
  worker.site["/rate/one/"] = () => page("newer");
  assert.equal(await read(worker.open("/rate/one/", "online")), "newer");
  assert.equal(await worker.request("/static/main.js", { client: "online" }), undefined); // The browser's own way.
  worker.goOffline();
  assert.equal(await read(worker.open("/rate/one/", "offline")), "newer");
  // The connection is back, and of another version: the page keeps to its own files.
  worker.site["/static/main.js"] = ok("another version");
  assert.equal(await read(worker.request("/static/main.js", { client: "offline" })), "js");
  assert.equal(await read(worker.request("/static/main.1b.css", { client: "offline" })), "css");
  assert.equal(await worker.request("/static/main.js", { client: "online" }), undefined);
});

test("nothing but rating pages, pictures and files is touched", async () => {
  const worker = await startWithPage();
  const untouched = [
    worker.request("/api/campaigns/one/lease", { method: "POST" }),
    worker.request("/rate/one/", { method: "HEAD", mode: "cors" }),
    worker.request("/rate/one/", { mode: "cors" }), // The page asks for its new token.
    worker.request("/my-work/"),
    worker.request("https://elsewhere.example/images/a/"),
  ];
  assert.deepEqual(await Promise.all(untouched), [undefined, undefined, undefined, undefined, undefined]);
  worker.site["/rate/one/elsewhere/"] = () => page("elsewhere");
  assert.equal(await read(worker.open("/rate/one/elsewhere/")), "elsewhere");
  assert.deepEqual(worker.paths()["atelier-rating-of-7-one"], ["/rate/one/"]);
});

test("examples that come first open in the place of the work, and are gone once the work is back", async () => {
  const leadsAway = () => ({ ok: false, status: 0, headers: new Headers(), clone() { return this; } });
  const worker = await startWithPage();
  worker.site["/rate/one/"] = leadsAway;
  worker.site["/rate/one/examples/"] = () => page("examples");
  await worker.open("/rate/one/");
  assert.equal(await read(worker.open("/rate/one/examples/")), "examples");
  assert.deepEqual(worker.paths()["atelier-rating-of-7-one"], ["/rate/one/examples/"]);
  const { site } = worker;
  const before = { ...site };
  worker.goOffline();
  assert.deepEqual([await read(worker.open("/rate/one/examples/")), await read(worker.open("/rate/one/"))], ["examples", "examples"]);
  Object.assign(site, before, { "/rate/one/": () => page("work"), "/rate/one/examples/": leadsAway });
  await worker.open("/rate/one/"); // Whoever has passed goes there, and to the examples no more.
  assert.deepEqual(worker.paths()["atelier-rating-of-7-one"], ["/rate/one/"]);
});

test("pictures that a page names to its script are kept as that page names them, whatever it told before", async () => {
  const worker = await startWithPage('{"images": [{"url": "/images/newly-signed/"}], "rate_url": "/rate/one/"}', { "/images/newly-signed/": ok("x") });
  await worker.say({ pictures: [] });
  assert.deepEqual(worker.paths()["atelier-rating-of-7-one"], ["/images/newly-signed/", "/rate/one/"]);
});

test("where nothing is kept of an address a page says so", async () => {
  const worker = await startWithPage();
  worker.goOffline();
  const answer = await worker.open("/rate/two/", "told");
  assert.deepEqual([answer.status, await answer.text()], [503, "<h1>No connection</h1>"]);
  assert.match(answer.headers.get("Content-Security-Policy"), /^default-src 'none'/);
  assert.equal(await read(worker.request("/static/main.1b.css", { client: "told" })), "css");
  assert.equal((await worker.open("/rate/one/?view=grid")).status, 503);
});

test("what the server says of a page passes through, and a refusal ends what was kept of it", async () => {
  for (const refusal of [() => new Response("no", { status: 403 }), () => new Response("gone", { status: 404 }), () => new Response("paused"), () => ({ ok: false, status: 0, headers: new Headers(), clone() { return this; } })]) {
    const worker = await startWithPage();
    worker.site["/rate/one/"] = refusal;
    const answer = await worker.open("/rate/one/");
    assert.notEqual(answer.headers.get("X-Atelier-Rater"), "7");
    assert.equal(worker.paths()["atelier-rating-of-7-one"], undefined);
  }
  const worker = await startWithPage();
  for (const status of [429, 500, 503]) {
    worker.site["/rate/one/"] = () => new Response("later", { status });
    assert.equal(await read(worker.open("/rate/one/")), "later");
  }
  worker.goOffline();
  assert.equal(await read(worker.open("/rate/one/")), "page");
});

test("pictures are kept of what is in hand and of the page itself, and go with it", async () => {
  const picture = (size) => () => new Response("x".repeat(size), { headers: { "Content-Length": String(size) } });
  const worker = await startWithPage('<img src="/images/good/" alt=""><img src="/static/logo.svg">', { "/images/good/": picture(3), "/images/a/": picture(3), "/images/b/": picture(3), "/images/huge/": () => new Response("x", { headers: { "Content-Length": String(2 ** 30) } }) });
  await worker.say({ pictures: ["/images/a/", "/images/missing/", "/images/b/"] }).catch(() => {});
  assert.deepEqual(worker.paths()["atelier-rating-of-7-one"].slice(0, 1), ["/images/a/"]); // The connection was lost: the rest comes with the next word.
  worker.site["/images/missing/"] = () => new Response("", { status: 404 });
  await worker.say({ pictures: ["/images/b/", "/images/missing/"] });
  assert.deepEqual(worker.paths()["atelier-rating-of-7-one"], ["/images/b/", "/images/good/", "/rate/one/"]);
  await worker.say({ pictures: ["/images/huge/", "/images/a/"] });
  assert.deepEqual(worker.paths()["atelier-rating-of-7-one"], ["/images/good/", "/rate/one/"]); // More than there is room for.
  await worker.say({ pictures: ["/images/b/"] });
  assert.equal(await worker.request("/images/b/"), undefined); // A page from the server has them as without a worker.
  worker.goOffline();
  await worker.open("/rate/one/", "offline");
  const before = worker.asked.length;
  assert.equal((await read(worker.request("/images/good/", { client: "offline" }))).length, 3);
  assert.equal(worker.asked.length, before); // Not asked for where the page itself had to come from here.
  await assert.rejects(worker.request("/images/a/", { client: "offline" }));
  const later = start({}, { caches: worker.caches, onLine: false }); // The browser has ended it, and started it again.
  assert.equal((await read(later.request("/images/b/", { client: "offline" }))).length, 3);
});

test("no pictures are kept where the browser has little room for the judgments", async () => {
  const worker = await startWithPage("page", { "/images/a/": ok("a") }, { usage: 4.5e8 });
  await worker.say({ pictures: ["/images/a/"] });
  assert.deepEqual(worker.paths()["atelier-rating-of-7-one"], ["/rate/one/"]);
});

test("a first visit, which no worker saw, is fetched once more", async () => {
  const worker = start(withFiles({ "/rate/one/?view=grid": () => page("grid") }));
  await worker.install();
  await worker.say({ page: `${SITE}/rate/one/?view=grid` });
  await worker.say({ page: `${SITE}/rate/one/?view=grid` });
  assert.equal(worker.asked.filter((path) => path.startsWith("/rate/")).length, 1);
  worker.goOffline();
  assert.equal(await read(worker.open("/rate/one/?view=grid&from=mail")), "grid");
});

test("what was kept of another person goes with the first page of whoever comes, and their pictures are not taken", async () => {
  const worker = await startWithPage("page", { "/images/a/": ok("a") });
  worker.site["/rate/two/"] = () => page("of another", { user: "8" });
  await worker.open("/rate/two/");
  assert.deepEqual(Object.keys(worker.paths()).sort(), ["atelier-rating-files-v1", "atelier-rating-of-8-two"]);
  delete worker.site["/rate/one/"];
  worker.site["/rate/one/"] = () => new Response("", { status: 403 });
  await worker.say({ pictures: ["/images/a/"] }); // A tab that was left open.
  assert.deepEqual(Object.keys(worker.paths()).sort(), ["atelier-rating-files-v1", "atelier-rating-of-8-two"]);
});

test("no more than three campaigns are kept, those that were opened last", async () => {
  const worker = await startWithPage();
  for (const [place, slug] of ["two", "three", "four"].entries()) {
    worker.site[`/rate/${slug}/`] = () => page(slug, { date: `Fri, 27 Nov 2026 1${place + 1}:00:00 GMT` });
    await worker.open(`/rate/${slug}/`);
  }
  assert.deepEqual(Object.keys(worker.paths()).filter((name) => name.includes("-of-")).sort(), ["four", "three", "two"].map((slug) => `atelier-rating-of-7-${slug}`));
});

test("a new version takes over once the server gives its pages, whole, with pages of its own", async () => {
  const old = await startWithPage();
  const files = [["/static/main.2a.js", "/static/main.js"]];
  const site = { "/static/main.2a.js": () => new Response("", { status: 404 }), "/rate/one/": () => page("second", { files: "v2" }) };
  const worker = start(site, { caches: old.caches, version: "v2", files });
  await assert.rejects(worker.install()); // Another machine still has the old files only.
  site["/static/main.2a.js"] = ok("js 2");
  await worker.install();
  await worker.say({ files: "v1" }); // A page of before does not bring it in.
  assert.equal(worker.asked.includes("skipWaiting"), false);
  old.goOffline();
  assert.equal(await read(old.open("/rate/one/")), "page");
  await worker.say({});
  assert.equal(worker.asked.includes("skipWaiting"), true);
  await worker.activate();
  assert.deepEqual(worker.paths(), { "atelier-rating-files-v2": ["/static/main.2a.js"], "atelier-rating-of-7-one": ["/rate/one/"] });
  worker.goOffline();
  assert.equal(await read(worker.open("/rate/one/", "offline")), "second");
  assert.equal(await read(worker.request("/static/main.js", { client: "offline" })), "js 2");
});

test("a page of another version than the files here is not shown", async () => {
  const worker = await startWithPage();
  worker.site["/rate/one/"] = () => page("of tomorrow", { files: "v2" });
  await worker.open("/rate/one/");
  worker.goOffline();
  assert.equal((await worker.open("/rate/one/")).status, 503);
});

test("files that were cleared with a sign-out come again with the next word", async () => {
  const worker = await startWithPage();
  await worker.caches.delete("atelier-rating-files-v1");
  const site = { ...worker.site };
  worker.goOffline();
  assert.equal((await worker.open("/rate/one/")).status, 503);
  Object.assign(worker.site, site);
  await worker.say({});
  worker.goOffline();
  assert.equal(await read(worker.open("/rate/one/")), "page");
});
