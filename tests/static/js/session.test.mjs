import assert from "node:assert/strict";
import { test } from "node:test";
import { createQueue } from "../../../static/js/rate/queue.js";
import { createSession } from "../../../static/js/rate/session.js";

// Node knows it since version 21.
globalThis.navigator ??= { onLine: true };

globalThis.requestAnimationFrame = (work) => setTimeout(work);
delete globalThis.BroadcastChannel; // It would hold up the end of the tests.
const { setTimeout: plan } = globalThis;
globalThis.setTimeout = (work, ms) => {
  const timer = plan(work, ms);
  if (ms > 1000) timer.unref(); // As would what is to be done in a minute.
  return timer;
};

const questions = [{ name: "alignment", required: true, choices: [] }];
const item = (assignment) => ({ assignment, item: assignment, prompt: `p${assignment}`, bucket: "", images: [], expiresAt: Date.now() + 600000 });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** A session whose server takes in all judgments; lease(count, options) answers its requests for items. */
function start(lease, { items = [], buffer = 4, refillAt = buffer } = {}) {
  const queue = createQueue({ questions, buffer, refillAt });
  queue.offer(items.map(item));
  const said = { progress: null, messages: [], refusal: null };
  const view = {
    announce() {},
    showProgress: (progress) => (said.progress = progress),
    showOutbox() {},
    showGone() {},
    showReopened() {},
    showRoleLost() {},
    showLoading() {},
    showMessage: (tone, title, words, buttons) => said.messages.push({ title, buttons }),
  };
  const server = {
    lease: async (count, options) => ({ ok: true, status: 200, gone: [], ...(await lease(count, options)) }),
    sendJudgments: async (judgments) => said.refusal ?? ({ ok: true, status: 200, results: judgments.map(({ id }) => ({ id, status: "stored" })) }),
  };
  const session = createSession({
    config: { user_id: 1, campaign: "c", progress: { done: 0, total: 9, left_for_me: 9 } },
    queue,
    prefetch: { want() {} },
    server,
    view,
    show() {},
    isShown: () => true,
    wanted: () => [],
    showHistory() {},
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
