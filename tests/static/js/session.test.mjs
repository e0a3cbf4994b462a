import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { createMemoryStore } from "../../../static/js/rate/outbox.js";
import { createQueue } from "../../../static/js/rate/queue.js";
import { createSession } from "../../../static/js/rate/session.js";

// Node knows it since version 21.
globalThis.navigator ??= { onLine: true };

globalThis.requestAnimationFrame = (work) => setTimeout(work);
const tabs = new Set();
// The one of Node would hold up the end of the tests.
globalThis.BroadcastChannel = class {
  constructor(name) {
    this.name = name;
    tabs.add(this);
  }

  addEventListener(_, hear) {
    this.hear = hear;
  }

  postMessage(data) {
    const copy = structuredClone(data);
    for (const tab of tabs) if (tab !== this && tab.name === this.name) queueMicrotask(() => tab.hear({ data: copy }));
  }
};
beforeEach(() => tabs.clear());
const { setTimeout: plan } = globalThis;
globalThis.setTimeout = (work, ms) => {
  const timer = plan(work, ms);
  if (ms > 1000) timer.unref(); // As would what is to be done in a minute.
  return timer;
};

const questions = [{ name: "alignment", required: true, choices: [] }];
const item = (assignment) => ({ assignment, item: assignment, prompt: `p${assignment}`, bucket: "", images: [], expiresAt: Date.now() + 600000 });

/** What a test waits for keeps node running, however long. In parts: on a busy machine each lets what is due meanwhile come first. */
async function pause(ms, parts = 10) {
  for (let part = 0; part < parts; part += 1) await new Promise((done) => plan(done, ms / parts));
}

/** A session whose server takes in all judgments; lease(count, options) answers its requests for items. */
function start(lease, { items = [], buffer = 4, refillAt = buffer, store = createMemoryStore(), campaign = "c" } = {}) {
  const queue = createQueue({ questions, buffer, refillAt });
  queue.offer(items.map(item));
  const said = { progress: null, messages: [], refusal: null, reopened: false };
  const view = {
    announce() {},
    showProgress: (progress) => (said.progress = progress),
    showOutbox() {},
    showGone() {},
    showReopened: (on) => (said.reopened = on),
    showRoleLost() {},
    showLoading() {},
    showMessage: (tone, title, words, buttons) => said.messages.push({ title, buttons }),
  };
  const server = {
    lease: async (count, options) => ({ ok: true, status: 200, gone: [], ...(await lease(count, options)) }),
    sendJudgments: async (judgments) => (said.refusal instanceof Error ? Promise.reject(said.refusal) : null) ?? said.refusal ?? ({ ok: true, status: 200, results: judgments.map(({ id }) => ({ id, status: "stored" })) }),
  };
  const session = createSession({
    config: { user_id: 1, campaign, progress: { done: 0, total: 9, left_for_me: 9 } },
    queue,
    prefetch: { want() {} },
    server,
    view,
    show() {},
    isShown: () => true,
    wanted: () => [],
    showHistory() {},
    store,
  });
  return { queue, session, said };
}

test("what is judged here while the answer is on its way was not judged on another device", async () => {
  let answer;
  const { queue, session, said } = start(() => new Promise((done) => (answer = done)), { items: [1, 2, 3, 4, 5, 6] });
  const refilled = session.refill(true);
  session.keep(queue.answer("alignment", "pass"));
  session.keep(queue.answer("alignment", "pass"));
  await pause(300); // The rows arrive first.
  session.keep(queue.undo());
  await pause(300);
  answer({ items: [], gone: [1, 2, 5] });
  await refilled;
  await pause(20);
  assert.deepEqual(queue.first(9).map((one) => one.assignment), [2, 3, 4, 6]);
  assert.deepEqual([said.progress.done, said.progress.left], [2, 7]); // The first by the rater here, the fifth elsewhere.
});

test("news that were asked for in vain are asked for again, without anything being judged", async () => {
  let asked = 0;
  const { queue, session } = start(() => ((asked += 1) === 1 ? Promise.reject(new TypeError()) : { items: [], gone: [1] }), { items: [1, 2, 3, 4] });
  await session.refill(true);
  assert.equal(queue.length(), 4);
  for (let waited = 0; queue.length() > 3 && waited < 5000; waited += 100) await pause(100);
  assert.deepEqual(queue.first(9).map((one) => one.assignment), [2, 3, 4]);
});

test("a full answer that holds nothing new is not asked for again at once", async () => {
  let asked = 0;
  const leased = [1, 2, 3, 4].map(item);
  const { queue, session } = start(() => ((asked += 1) > 5 ? new Promise(() => {}) : { items: leased }), { items: [2, 3, 4] });
  queue.dropElsewhere(1); // Another tab has it.
  await session.refill();
  await pause(300);
  assert.equal(asked, 1);
});

test("that the role is back is seen also where nothing is left", async () => {
  const refusal = { ok: false, status: 403, isRoleLost: true };
  let answer = { ...refusal };
  const { queue, session, said } = start(() => answer, { items: [1] });
  said.refusal = refusal;
  session.keep(queue.answer("alignment", "pass"));
  await pause(300);
  await session.refill();
  assert.equal(said.messages.at(-1).title, "This account may not rate now");
  answer = { items: [] };
  said.refusal = null;
  said.messages.at(-1).buttons[0].run();
  await pause(300);
  assert.equal(said.messages.at(-1).title, "Nothing is left for you here");
});

test("what ran out leaves the screen after a return to it, but not once the rater has gone on there", async (t) => {
  const listeners = {};
  globalThis.document = { visibilityState: "visible", querySelectorAll: () => [], addEventListener: (type, hear) => (listeners[type] = hear) };
  globalThis.addEventListener = () => {};
  t.mock.method(globalThis, "setInterval", () => 0);
  const clock = Date.now;
  for (const [judged, left] of [[0, [9]], [1, [2, 9]]]) {
    let offset = 0;
    t.mock.method(Date, "now", () => clock() + offset);
    let answer = { items: [1, 2, 3].map(item) };
    const { queue, session } = start(() => answer ?? Promise.reject(new Error("offline")));
    await session.start();
    await pause(50);
    answer = null;
    offset = 3600000;
    listeners.visibilitychange();
    await pause(50);
    for (let count = 0; count < judged; count += 1) session.keep(queue.answer("alignment", "pass"));
    answer = { items: [item(9)] };
    offset += 60000;
    await session.refill();
    assert.deepEqual(queue.first(9).map((one) => one.assignment), left);
  }
});

test("what is new is heard also where no more items are asked for just now", async () => {
  const counts = [];
  const { queue, session } = start((count) => (counts.push(count), { items: [1, 2, 3, 4, 5, 6, 7].map(item) }), { items: [1, 2, 3, 4, 5, 6, 7], buffer: 9 });
  await session.refill();
  for (let count = 0; count < 5; count += 1) session.keep(queue.answer("alignment", "pass"));
  session.settleAfterPaint();
  await pause(50);
  assert.deepEqual(counts, [9, 1]);
});

/** The browser around a session that is started; `tick` is its clock of every 15 seconds. */
function createPage(t) {
  const page = { listeners: {}, tick: null };
  const hear = (type, work) => (page.listeners[type] = work);
  globalThis.document = { visibilityState: "visible", querySelectorAll: () => [], addEventListener: hear };
  globalThis.addEventListener = hear;
  t.mock.method(globalThis, "setInterval", (work) => (page.tick = work));
  return page;
}

test("without a connection a new visit goes on with what the last one left in hand, where its chains end", async (t) => {
  createPage(t);
  const store = createMemoryStore();
  const first = start(() => ({ items: [1, 2, 3, 4].map(item) }), { store });
  await first.session.start();
  await pause(50);
  first.said.refusal = new TypeError("no connection");
  const keep = (record) => (first.session.keep(record), first.session.settleAfterPaint("said"));
  keep(first.queue.answer("alignment", "pass"));
  keep(first.queue.answer("alignment", "fail"));
  const undo = first.queue.undo();
  keep(undo);
  await pause(50);
  keep(first.queue.skip()); // In the second before what is in hand is written again.
  await pause(50);

  let answer = null;
  const again = start(() => answer ?? Promise.reject(new TypeError("no connection")), { store });
  again.said.refusal = new TypeError("no connection");
  await again.session.start();
  await pause(100);
  assert.deepEqual(again.queue.first(9).map((one) => one.assignment), [3, 4]);
  assert.equal(again.said.reopened, true);
  assert.deepEqual([again.said.progress.done, again.said.progress.left], [1, 8]);
  again.queue.undo();
  assert.equal(again.queue.current().assignment, 2);
  assert.notEqual(again.queue.answer("alignment", "pass").supersedes, undo.id);

  // The server is back: what it says is right.
  answer = { items: [item(4), item(5)], gone: [3] };
  again.said.refusal = null;
  for (let tries = 0; tries < 5 && again.said.reopened; tries += 1) {
    t.mock.method(Date, "now", ((time) => () => time)(Date.now() + 120000));
    await again.session.refill(true);
  }
  assert.equal(again.said.reopened, false);
  assert.deepEqual(again.queue.first(9).map((one) => one.assignment), [4, 5]);
});

test("what an undo leased anew goes on where its chain ended, sent or not", async (t) => {
  createPage(t);
  const store = createMemoryStore();
  const first = start(() => ({ items: [1, 2, 3, 4].map(item) }), { store });
  await first.session.start();
  await pause(50);
  first.session.keep(first.queue.answer("alignment", "pass"));
  const undo = first.queue.undo();
  first.session.keep(undo);
  first.session.settleAfterPaint("said");
  await pause(300);
  assert.deepEqual(await store.all("1"), []); // Both have arrived.
  const again = start(() => Promise.reject(new TypeError("no connection")), { store });
  await again.session.start();
  await pause(100);
  assert.equal(again.queue.answer("alignment", "fail").supersedes, undo.id);
});

test("where the server answers, what an earlier visit left is not shown", async (t) => {
  createPage(t);
  for (const answer of [{ items: [item(9)] }, { ok: false, status: 409, reason: "Paused." }, { ok: false, status: 401, reason: null }]) {
    const store = createMemoryStore();
    await store.put({ id: "held-1-c", user: "held-1", seq: Date.now(), items: [item(1)], progress: {} });
    const again = start(() => answer, { store });
    await again.session.start();
    await pause(50);
    assert.deepEqual(again.queue.first(9).map((one) => one.assignment), answer.items ? [9] : []);
    assert.equal(again.said.reopened, false);
  }
});

test("leases are renewed while their rater is there, and not for ever", async (t) => {
  const page = createPage(t);
  let asked = 0;
  const clock = Date.now;
  let offset = 0;
  t.mock.method(Date, "now", () => clock() + offset);
  const { session } = start(() => (asked += 1, { items: [1, 2, 3, 4].map(item) })); // For ten minutes each.
  await session.start();
  await pause(50);
  const later = async (minutes) => {
    offset += minutes * 60000;
    page.tick();
    await pause(20);
    return asked;
  };
  assert.deepEqual([await later(4), await later(2), await later(1)], [1, 2, 2]);
  page.listeners.pointermove();
  assert.deepEqual([await later(20), await later(15)], [3, 3]);
  page.listeners.keydown();
  assert.equal(await later(0.1), 4);
});

test("what one tab takes back offline any tab may judge, where its chain ends, and none can take it back twice", async () => {
  const store = createMemoryStore();
  const offline = () => Promise.reject(new TypeError("no connection"));
  const [one, other] = [0, 1].map(() => start(offline, { items: [1, 2, 3], store }));
  for (const tab of [one, other]) tab.said.refusal = new TypeError("no connection");
  const numbers = () => [one, other].map(({ queue }) => queue.first(9).map((each) => each.assignment));
  one.session.keep(one.queue.answer("alignment", "pass"));
  await pause(0);
  assert.deepEqual(numbers(), [[2, 3], [2, 3]]);
  const undo = one.queue.undo();
  one.session.keep(undo);
  await pause(300);
  assert.deepEqual(numbers(), [[1, 2, 3], [2, 3, 1]]); // What is on the other's screen stays there.
  assert.deepEqual([one, other].map(({ said }) => [said.progress.done, said.progress.left]), [[0, 9], [0, 9]]);
  for (const value of ["pass", "pass", "fail"]) other.session.keep(other.queue.answer("alignment", value));
  await pause(300);
  assert.deepEqual(numbers(), [[], []]);
  assert.equal(other.queue.history()[0].record.supersedes, undo.id);
  assert.deepEqual([one, other].map(({ said }) => [said.progress.done, said.progress.left]), [[3, 6], [3, 6]]);
  // The other takes back what this one had judged in the visit before.
  one.queue.restore(other.queue.history());
  other.session.keep(other.queue.undo());
  await pause(0);
  assert.deepEqual([one.queue.undo(1), one.queue.current().assignment], [null, 1]);
});

test("what another tab has just taken back is not taken for judged on another device", async () => {
  const store = createMemoryStore();
  let known = [1, 2, 3]; // What the server leases; of the rest it says that it was judged.
  const asked = [];
  const lease = (count, { holding = [] }) => (asked.push(holding), { items: known.map(item), gone: holding.filter((one) => !known.includes(one)) });
  const [one, other] = [0, 1].map(() => start(lease, { items: [1, 2, 3], store }));
  one.session.keep(one.queue.answer("alignment", "pass"));
  await pause(400); // It was sent.
  known = [2, 3];
  one.session.keep(one.queue.undo());
  await pause(20);
  await other.session.refill(true);
  await other.session.refill(true);
  assert.deepEqual(other.queue.first(9).map((each) => each.assignment), [2, 3, 1]);
  assert.ok(asked.every((holding) => !holding.includes(1)));
  // Once the server has heard of it, it is like any other.
  await pause(400);
  await other.session.refill(true);
  assert.deepEqual(other.queue.first(9).map((each) => each.assignment), [2, 3]);
});

test("an undo that the server refuses takes the item from the other tabs again", async () => {
  const store = createMemoryStore();
  const [one, other] = [0, 1].map(() => start(() => ({ items: [] }), { items: [1, 2, 3], store }));
  one.session.keep(one.queue.answer("alignment", "pass"));
  await pause(400);
  const undo = one.queue.undo();
  one.said.refusal = { ok: true, status: 200, results: [{ id: undo.id, status: "rejected", reason: "Judged on another device." }] };
  one.session.keep(undo);
  await pause(0);
  assert.deepEqual(other.queue.first(9).map((each) => each.assignment), [2, 3, 1]);
  await pause(400);
  assert.deepEqual(other.queue.first(9).map((each) => each.assignment), [2, 3]);
  assert.deepEqual([other.said.progress.done, other.said.progress.left], [1, 8]);
});

test("a page that waits for its first answer leaves what is kept as it is", async () => {
  const store = createMemoryStore();
  const one = start(() => new Promise(() => {}), { items: [1, 2, 3], store });
  one.session.keep(one.queue.answer("alignment", "pass"));
  await pause(400);
  let fail;
  const fresh = start(() => new Promise((_, no) => (fail = no)), { store });
  const refilled = fresh.session.refill(true);
  one.session.keep(one.queue.undo());
  await pause(20);
  assert.equal(fresh.queue.length(), 0);
  fail(new TypeError("no connection"));
  await refilled;
  assert.ok(fresh.queue.length() <= 3);
});

test("a tab on another campaign hears nothing of this one's", async () => {
  const [one, other] = ["c", "d"].map((campaign) => start(() => new Promise(() => {}), { items: [1, 2], campaign }));
  one.session.keep(one.queue.answer("alignment", "pass"));
  await pause(300);
  assert.deepEqual([other.queue.length(), other.said.progress], [2, null]);
});

test("a clock that is set back holds nothing up", async (t) => {
  let asked = 0;
  const { queue, session } = start(() => ((asked += 1), { items: [1, 2, 3].slice(3 - queue.length()).map(item) }), { items: [1, 2, 3] });
  await session.refill(); // Nothing new: asked again in some seconds.
  const before = asked;
  const { now } = Date;
  Date.now = () => now() - 86400000;
  t.after(() => (Date.now = now));
  await session.refill();
  assert.equal(asked, before + 1);
});

test("whoever has nothing left is told that the server is away, and not left to wait", async () => {
  const { queue, session, said } = start(() => Promise.reject(new TypeError("no connection")), { items: [1] });
  await session.refill();
  session.keep(queue.answer("alignment", "pass"));
  session.showNothing();
  assert.equal(said.messages.at(-1)?.title, "The server cannot be reached");
});

test("what was refused after nothing was left says nothing of whether there is more now", async () => {
  let answer = { items: [] };
  const { queue, session, said } = start(() => answer, { items: [1] });
  await session.refill();
  session.keep(queue.answer("alignment", "pass"));
  session.showNothing();
  assert.equal(said.messages.at(-1).title, "Nothing is left for you here");
  answer = { ok: false, status: 500 };
  await session.refill(true);
  assert.equal(said.messages.at(-1).title, "The server cannot be reached");
  answer = { items: [item(2)] };
  for (let waited = 0; !queue.length() && waited < 5000; waited += 100) await pause(100);
  assert.equal(queue.length(), 1);
});

test("what an earlier visit left unsent counts", async (t) => {
  createPage(t);
  const store = createMemoryStore();
  const first = start(() => new Promise(() => {}), { items: [1, 2], store });
  first.said.refusal = new TypeError("no connection");
  await first.session.start();
  first.session.keep(first.queue.answer("alignment", "pass"));
  await pause(400);

  tabs.clear();
  const again = start(() => new Promise(() => {}), { store });
  again.said.refusal = { ok: false, status: 503, retryAfter: 60 };
  await again.session.start();
  await pause(50);
  assert.deepEqual([again.said.progress.done, again.said.progress.left], [1, 8]);
});

test("what the server refuses is not among what is done, in any tab", async () => {
  const store = createMemoryStore();
  const [one, other] = [0, 1].map(() => start(() => ({ items: [] }), { items: [1, 2, 3], store }));
  const judged = one.queue.answer("alignment", "pass");
  one.said.refusal = { ok: true, status: 200, results: [{ id: judged.id, status: "rejected", reason: "The campaign is closed." }] };
  one.session.keep(judged);
  one.session.settleAfterPaint();
  await pause(600);
  for (const { said } of [one, other]) assert.deepEqual([said.progress.done, said.progress.left], [0, 9]);
  one.said.refusal = null;
  one.session.keep(one.queue.answer("alignment", "fail"));
  await pause(600);
  for (const { said } of [one, other]) assert.deepEqual([said.progress.done, said.progress.left], [1, 8]);
});

test("what was refused counts again once it is sent again, in any tab", async () => {
  const store = createMemoryStore();
  const [one, other] = [0, 1].map(() => start(() => ({ items: [] }), { items: [1, 2, 3], store }));
  const judged = one.queue.answer("alignment", "pass");
  one.said.refusal = { ok: true, status: 200, results: [{ id: judged.id, status: "rejected", reason: "The campaign is closed." }] };
  one.session.keep(judged);
  await pause(600);
  one.said.refusal = null;
  one.session.resend(judged.id);
  await pause(600);
  for (const { said } of [one, other]) assert.deepEqual([said.progress.done, said.progress.left], [1, 8]);
});

test("a tab on another campaign that delivers tells of refusals, and has no figure changed by them", async (t) => {
  createPage(t);
  const store = createMemoryStore();
  const one = start(() => ({ items: [] }), { items: [1, 2], store });
  const judged = one.queue.answer("alignment", "pass");
  one.said.refusal = { ok: false, status: 503, retryAfter: 60 };
  one.session.keep(judged);
  await pause(400);
  assert.deepEqual([one.said.progress.done, one.said.progress.left], [1, 8]);
  const other = start(() => ({ items: [] }), { items: [3], store, campaign: "d" });
  other.said.refusal = { ok: true, status: 200, results: [{ id: judged.id, status: "rejected", reason: "The campaign is closed." }] };
  await other.session.start();
  await pause(400);
  assert.deepEqual([one.said.progress.done, one.said.progress.left], [0, 9]);
  assert.deepEqual([other.said.progress.done, other.said.progress.left], [0, 9]);
});

test("where a judgment and its undo are both refused, nothing of them counts", async () => {
  const store = createMemoryStore();
  const [one, other] = [0, 1].map(() => start(() => ({ items: [] }), { items: [1, 2, 3], store }));
  const judged = one.queue.answer("alignment", "pass");
  one.session.keep(judged);
  const undo = one.queue.undo();
  one.said.refusal = { ok: true, status: 200, results: [judged, undo].map(({ id }) => ({ id, status: "rejected", reason: "The campaign is closed." })) };
  one.session.keep(undo);
  await pause(600);
  for (const { said } of [one, other]) assert.deepEqual([said.progress.done, said.progress.left], [0, 9]);
});

test("what is judged before all that was left is read counts once", async (t) => {
  createPage(t);
  const one = start(() => ({ items: [] }), { items: [1, 2] });
  one.said.refusal = { ok: false, status: 503, retryAfter: 60 };
  one.session.keep(one.queue.answer("alignment", "pass"));
  one.session.settleAfterPaint();
  await pause(50);
  await one.session.start();
  await pause(100);
  assert.deepEqual([one.said.progress.done, one.said.progress.left], [1, 8]);
  assert.equal(one.queue.history().length, 1);
});

test("however much an earlier visit left unsent counts, until it is refused", async (t) => {
  createPage(t);
  const store = createMemoryStore();
  const numbers = Array.from({ length: 30 }, (_, index) => index + 1);
  const first = start(() => new Promise(() => {}), { items: numbers, store });
  first.said.refusal = new TypeError("no connection");
  const ids = numbers.map(() => {
    const judged = first.queue.answer("alignment", "pass");
    first.session.keep(judged);
    return judged.id;
  });
  await pause(400);

  tabs.clear();
  const again = start(() => new Promise(() => {}), { store });
  again.said.refusal = { ok: false, status: 503, retryAfter: 1 };
  await again.session.start();
  await pause(100);
  assert.equal(again.said.progress.done, 30);
  again.said.refusal = { ok: true, status: 200, results: ids.map((id) => ({ id, status: "rejected", reason: "The campaign is closed." })) };
  await pause(1500);
  assert.equal(again.said.progress.done, 0);
});

test("what is refused since the item was judged elsewhere leaves it done", async () => {
  const one = start(() => ({ items: [] }), { items: [1, 2] });
  const judged = one.queue.skip(null);
  one.said.refusal = { ok: true, status: 200, results: [{ id: judged.id, status: "rejected", reason: "You have answered this item on another device since.", stands: true }] };
  one.session.keep(judged);
  await pause(600);
  assert.deepEqual([one.said.progress.done, one.said.progress.left], [1, 8]);
});
