// The service worker of the rating screen: opens a page again where there is no connection. Django puts FILES ([[address, plain address]]), VERSION and
// NOTICE (a page) before it. A page comes from the server whenever that answers, and then has its files from there too; only a page that came from
// here has its files from here. Kept are one version's static files, and by person and campaign the pages and the pictures that they need.
const PAGE = /^\/rate\/([-\w]+)\/(?:examples\/)?$/; // Of work, and of examples that come first.
const EXAMPLES = /\/examples\/$/;
const PICTURE = /^\/images\/[^/]+\/$/;
const STORES = "atelier-rating-";
const FILE_STORE = `${STORES}files-${VERSION}`;
const OF = `${STORES}of-`; // Then the person and the campaign.

const MOST_CAMPAIGNS = 3;
const MOST_PICTURES = 300; // Of one campaign.
const MOST_BYTES = 96 * 2 ** 20;
const PAUSE = 250; // Between two pictures, in ms.
const AS_IS = { ignoreVary: true }; // An address has one answer here, whatever it was asked with.

const places = new Map(FILES.flatMap(([address, plain]) => [[address, address], [plain, address]]));
const fromHere = new Set(); // Pages that this worker has opened, by the ids of their clients.
let storing = null;
let keeping = Promise.resolve();

// ---- static files ----
/** All of them or none: what is there counts only when it is whole. */
function storeFiles() {
  storing ??= storeMissingFiles().finally(() => (storing = null));
  return storing;
}

async function storeMissingFiles() {
  const store = await caches.open(FILE_STORE);
  const present = new Set((await store.keys()).map((request) => new URL(request.url).pathname));
  await Promise.all(FILES.map(async ([address]) => {
    if (present.has(address)) return;
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    await store.put(address, answer);
  }));
}

async function hasFiles() {
  return (await caches.has(FILE_STORE)) && (await (await caches.open(FILE_STORE)).keys()).length >= FILES.length;
}

async function readFile(path) {
  const store = await caches.open(FILE_STORE);
  return (await store.match(places.get(path), AS_IS)) ?? Response.error(); // Never the server's: that may be of another version by now.
}

// ---- pages ----
const keyOf = (url) => url.pathname + (url.searchParams.get("view") === "grid" ? "?view=grid" : "");
const slugOf = (url) => PAGE.exec(url.pathname)?.[1];
const isPage = (request) => PAGE.test(new URL(request.url).pathname);
const personsStores = async () => (await caches.keys()).filter((name) => name.startsWith(OF));

/** What the server has said of a page. Whatever is not the screen itself, such as the way to the sign-in page, ends what was kept of it. */
async function takeAnswer(url, answer) {
  const user = answer.headers.get("X-Atelier-Rater");
  if (answer.ok && user) {
    for (const name of await personsStores()) if (!name.startsWith(`${OF}${user}-`)) await caches.delete(name);
    const store = await caches.open(`${OF}${user}-${slugOf(url)}`);
    await store.put(keyOf(url), answer);
    // Where the work is open, no examples come before it.
    if (!EXAMPLES.test(url.pathname)) await store.delete(keyOf(new URL("examples/", url)));
    await dropOldest();
  } else if (answer.status < 500 && answer.status !== 429) {
    for (const name of await personsStores()) {
      const store = await caches.open(name);
      if ((await store.delete(keyOf(url), AS_IS)) && !(await store.keys()).some(isPage)) await caches.delete(name);
    }
  }
}

async function fetchPage(url) {
  await takeAnswer(url, await fetch(keyOf(url), { credentials: "same-origin", redirect: "manual", headers: { Accept: "text/html" } }));
}

/** Where examples come first the server leads there from the page of the work. */
async function readPage(url) {
  const examples = new URL("examples/", url);
  for (const key of [keyOf(url), keyOf(examples)]) {
    for (const name of await personsStores()) {
      const page = await (await caches.open(name)).match(key, AS_IS);
      if (page?.headers.get("X-Atelier-Files") === VERSION && (await hasFiles())) return page;
    }
  }
  return null;
}

async function dropOldest() {
  const ages = [];
  for (const name of await personsStores()) {
    const store = await caches.open(name);
    const pages = await Promise.all((await store.keys()).filter(isPage).map((request) => store.match(request, AS_IS)));
    ages.push([Math.max(0, ...pages.map((page) => Date.parse(page?.headers.get("Date")) || 0)), name]);
  }
  ages.sort((a, b) => b[0] - a[0]);
  for (const [, name] of ages.slice(MOST_CAMPAIGNS)) await caches.delete(name);
}

async function openPage(event, url) {
  let answer;
  try {
    answer = await fetch(event.request);
  } catch {
    fromHere.add(event.resultingClientId);
    return (await readPage(url).catch(() => null)) ?? new Response(NOTICE, { status: 503, headers: { "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'" } });
  }
  if (PAGE.test(url.pathname)) event.waitUntil(takeAnswer(url, answer.clone()).catch(() => {}));
  return answer;
}

// ---- pictures ----
async function readPicture(address) {
  for (const name of await personsStores()) {
    const picture = await (await caches.open(name)).match(address, AS_IS);
    if (picture) return picture;
  }
  return null;
}

const openPicture = async (request) => (await readPicture(request.url)) ?? fetch(request);

/** Those that a page shows by itself, such as the examples of the guidelines, or names to its script. */
const picturesIn = (html) => [...html.matchAll(/(?:\ssrc=|"url": ?)"(\/images\/[^"/]+\/)"/g)].map(([, address]) => address);

/** Half of what the browser lends is left to what matters more: the judgments. */
async function hasRoom() {
  const { usage = 0, quota = Infinity } = (await self.navigator?.storage?.estimate?.()) ?? {};
  return usage + MOST_BYTES < quota / 2;
}

async function keepPictures(store, pictures) {
  const pages = await Promise.all((await store.keys()).filter(isPage).map(async (request) => (await store.match(request, AS_IS)).text()));
  const wanted = new Set([...pictures, ...pages.flatMap(picturesIn)].slice(0, MOST_PICTURES));
  let bytes = 0;
  const present = new Set();
  for (const request of await store.keys()) {
    if (isPage(request)) continue;
    const path = new URL(request.url).pathname;
    if (wanted.has(path)) {
      bytes += Number((await store.match(request, AS_IS))?.headers.get("Content-Length")) || 0;
      present.add(path);
    } else {
      await store.delete(request, AS_IS);
    }
  }
  if (!(await hasRoom())) return;
  for (const path of wanted) {
    if (present.has(path)) continue;
    const answer = await fetch(path, { credentials: "same-origin" });
    if (!answer.ok) continue;
    bytes += Number(answer.headers.get("Content-Length")) || 0;
    if (bytes > MOST_BYTES) return;
    await store.put(path, answer);
    await new Promise((done) => setTimeout(done, PAUSE)); // There is time for all of them, and somebody may be pressing keys.
  }
}

/** Of the version before, whose files go. */
async function fetchOldPages() {
  for (const name of await personsStores()) {
    const store = await caches.open(name);
    for (const request of (await store.keys()).filter(isPage)) {
      const page = await store.match(request, AS_IS);
      if (page?.headers.get("X-Atelier-Files") !== VERSION) await fetchPage(new URL(request.url));
    }
  }
}

/** A page of this version says what it has in hand: {user, page, pictures}, addresses of this site. */
async function keep({ user, page, pictures }) {
  await storeFiles();
  const url = new URL(page, self.location.href);
  if (!PAGE.test(url.pathname)) return;
  const name = `${OF}${user}-${slugOf(url)}`;
  if (!(await caches.has(name)) || !(await (await caches.open(name)).match(keyOf(url), AS_IS))) await fetchPage(url);
  await fetchOldPages();
  // Nothing is kept of whose page is not theirs.
  if (await caches.has(name)) await keepPictures(await caches.open(name), pictures);
}

async function dropOldFiles() {
  for (const name of await caches.keys()) if (name.startsWith(`${STORES}files-`) && name !== FILE_STORE) await caches.delete(name);
}

self.addEventListener("install", (event) => event.waitUntil(storeFiles()));
self.addEventListener("activate", (event) => event.waitUntil(dropOldFiles()));

self.addEventListener("message", (event) => {
  if (event.data?.files !== VERSION) return;
  self.skipWaiting(); // The server gives pages of this version now.
  keeping = keeping.then(() => keep(event.data)).catch(() => {}); // Without room, or a connection, the next one tries again.
  event.waitUntil(keeping);
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin) return;
  const stored = fromHere.has(event.clientId);
  if (request.mode === "navigate") event.respondWith(openPage(event, url));
  else if (stored && places.has(url.pathname)) event.respondWith(readFile(url.pathname));
  // Also where this worker was ended meanwhile, and knows no longer what it has opened.
  else if (PICTURE.test(url.pathname) && (stored || self.navigator.onLine === false)) event.respondWith(openPicture(request));
});
