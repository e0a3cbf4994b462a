import assert from "node:assert/strict";
import { test } from "node:test";
import { createQueue, howFarAhead, orderOf } from "../../../static/js/rate/queue.js";

const questions = [{ name: "alignment", required: true, choices: [] }];
const item = (assignment, more = {}) => ({ assignment, item: assignment, prompt: `p${assignment}`, bucket: "", images: [{ url: `/i/${assignment}.png`, width: 64, height: 64 }], ...more });
function start(options = {}) {
  let id = 0;
  const clock = { time: 1000 };
  return { clock, queue: createQueue({ questions, newId: () => `id${(id += 1)}`, now: () => clock.time, ...options }) };
}

test("an answer makes a complete row and shows the next item", () => {
  const { queue, clock } = start();
  queue.offer([item(1), item(2)]);
  queue.markShown();
  clock.time = 3000;
  assert.deepEqual(queue.answer("alignment", "pass"), {
    id: "id1", assignment: 1, action: "answer", answers: { alignment: "pass" }, reason: null,
    shown_at: new Date(1000).toISOString(), decided_at: new Date(3000).toISOString(), order: ["/i/1.png"], supersedes: null, guideline_revision: null,
    question_revision: null,
  });
  assert.equal(queue.current().assignment, 2);
});

test("what is known, judged or on its way is not taken in again", () => {
  const { queue } = start();
  assert.equal(queue.offer([item(1), item(2), item(1)]), 2);
  queue.answer("alignment", "pass");
  assert.equal(queue.offer([item(1), item(2), item(3), item(4)], new Set([4])), 1);
  assert.deepEqual([queue.current(), ...queue.upcoming(9)].map((one) => one.assignment), [2, 3]);
});

test("a lease that comes again renews the time of the held one", () => {
  const { queue, clock } = start();
  queue.offer([item(1), item(2, { expiresAt: 2000 })]);
  queue.offer([item(2, { expiresAt: 9000 })]);
  clock.time = 5000;
  assert.equal(queue.dropExpired(), 0);
});

test("each row supersedes the last one of its assignment", () => {
  const { queue } = start();
  queue.offer([item(1), item(2)]);
  const rows = [queue.answer("alignment", "pass"), queue.undo(), queue.answer("alignment", "fail"), queue.undo(), queue.skip()];
  assert.deepEqual(rows.map((row) => [row.action, row.assignment, row.supersedes]), [["answer", 1, null], ["undo", 1, "id1"], ["answer", 1, "id2"], ["undo", 1, "id3"], ["skip", 1, "id4"]]);
  assert.equal(queue.current().assignment, 2);
});

test("a chain that began in an earlier visit goes on", () => {
  const { queue } = start();
  queue.offer([item(1, { supersedes: "old" })]);
  assert.equal(queue.answer("alignment", "pass").supersedes, "old");
  assert.equal(queue.undo().supersedes, "id1");
});

test("any of the last twenty can be undone, older ones not", () => {
  const { queue } = start();
  queue.offer(Array.from({ length: 25 }, (_, index) => item(index)));
  for (let index = 0; index < 25; index += 1) queue.answer("alignment", "pass");
  assert.equal(queue.history().length, 20);
  assert.equal(queue.undo(4), null);
  assert.equal(queue.undo(5).assignment, 5);
  assert.equal(queue.current().assignment, 5);
  assert.equal(queue.undo().assignment, 24);
  assert.deepEqual([queue.current(), ...queue.upcoming(5)].map((one) => one.assignment), [24, 5]);
});

test("undoing with nothing judged, and answering with nothing there, do nothing", () => {
  const { queue } = start();
  assert.deepEqual([queue.undo(), queue.answer("alignment", "pass"), queue.skip(), queue.flag("x"), queue.answerAll({})], [null, null, null, null, null]);
});

test("several questions wait for each other; an answer can be changed until then; undo starts afresh", () => {
  const { queue } = start({ questions: ["quality", "alignment", "style"].map((name) => ({ name, required: true })) });
  queue.offer([item(1), item(2)]);
  assert.equal(queue.answer("quality", "pass"), null);
  assert.equal(queue.answer("quality", "fail"), null);
  assert.equal(queue.answer("style", "pass"), null);
  assert.deepEqual(queue.draft(), { quality: "fail", style: "pass" });
  assert.deepEqual(queue.answer("alignment", "pass").answers, { quality: "fail", style: "pass", alignment: "pass" });
  queue.undo();
  assert.deepEqual(queue.draft(), {});
});

test("a draft waits while an earlier item is judged again", () => {
  const { queue } = start({ questions: ["a", "b"].map((name) => ({ name, required: true })) });
  queue.offer([item(1), item(2)]);
  queue.answerAll({ a: "1", b: "1" });
  queue.answer("a", "2");
  queue.undo();
  queue.answerAll({ a: "1", b: "2" });
  assert.deepEqual([queue.current().assignment, queue.draft()], [2, { a: "2" }]);
});

test("an optional answer toggles and does not submit", () => {
  const { queue } = start({ questions: [...questions, { name: "why", required: false }] });
  queue.offer([item(1)]);
  queue.answer("why", "hands");
  queue.answer("why", "hands");
  assert.deepEqual(queue.draft(), {});
  queue.answer("why", "text");
  assert.deepEqual(queue.answer("alignment", "fail").answers, { why: "text", alignment: "fail" });
});

test("leases that ran out leave, but not from under the rater's eyes", () => {
  const { queue, clock } = start();
  queue.offer([item(1, { expiresAt: 2000 }), item(2, { expiresAt: 2000 }), item(3, { expiresAt: 9000 })]);
  clock.time = 3000;
  assert.equal(queue.dropExpired(), 1);
  assert.equal(queue.current().assignment, 1);
  assert.equal(queue.dropExpired(true), 1);
  assert.equal(queue.current().assignment, 3);
  assert.equal(queue.offer([item(2, { expiresAt: 9000 })]), 1, "a new lease brings it back");
});

test("the buffer is refilled at five, counting what is held and what is unsent", () => {
  const { queue } = start();
  queue.offer([1, 2, 3, 4, 5].map((n) => item(n)));
  assert.equal(queue.needsMore(), false);
  queue.skip();
  assert.equal(queue.needsMore(), true);
  assert.deepEqual([queue.wanted(0), queue.wanted(7), queue.wanted(900)], [10, 17, 100]);
});

test("as far ahead as fifty keys need, less where each item has many pictures or the device is to be spared", () => {
  const asked = [[1], [2], [9], [64], [1, { saveData: true }], [1, { deviceMemory: 2 }], [1, { deviceMemory: 8 }]];
  assert.deepEqual(asked.map((given) => howFarAhead(...given)), [[80, 52], [80, 52], [17, 12], [5, 4], [40, 26], [40, 26], [80, 52]]);
});

test("after an answer with fewer than were asked for, more are asked for ever more seldom, not after each key", () => {
  const { queue } = start();
  queue.setAhead(...howFarAhead(1));
  queue.offer(Array.from({ length: 40 }, (_, n) => item(n)));
  assert.equal(queue.needsMore(), true);
  const asked = [];
  while (queue.length()) {
    queue.noteAnswer(false);
    do queue.skip();
    while (!queue.needsMore());
    asked.push(queue.length());
  }
  assert.deepEqual(asked, [25, 16, 10, 6, 3, 1, 0]);
  queue.offer([item(98), item(99)]);
  queue.noteAnswer(true);
  assert.equal(queue.needsMore(), true);
});

test("a renewal keeps the addresses of what is held, by which its pictures are known", () => {
  const { queue } = start();
  queue.offer([item(1)]);
  queue.offer([item(1, { images: [{ url: "/signed-anew.png" }] })]);
  assert.equal(queue.current().images[0].url, "/i/1.png");
});

test("a refused judgment is no link of the chain, and its item comes again once", () => {
  const { queue } = start();
  queue.offer([item(1), item(2)]);
  const first = queue.answer("alignment", "pass");
  queue.forget(first);
  assert.equal(queue.undo(), null);
  assert.equal(queue.offer([item(1)]), 1);
  queue.skip();
  const second = queue.answer("alignment", "fail");
  assert.deepEqual([second.assignment, second.supersedes], [1, null]);
  queue.forget(second);
  assert.equal(queue.offer([item(1)]), 0);
});

test("after a refused correction the chain ends where it ended before", () => {
  const { queue } = start();
  queue.offer([item(1)]);
  const [, undo, again] = [queue.answer("alignment", "pass"), queue.undo(), queue.answer("alignment", "fail")];
  queue.forget(again);
  queue.offer([item(1)]);
  assert.equal(queue.skip().supersedes, undo.id);
});

test("a broken item is put aside, and so is what another tab has judged", () => {
  const { queue } = start();
  queue.offer([item(1), item(2), item(3), item(4)]);
  queue.setAside(1);
  assert.deepEqual([queue.dropElsewhere(3), queue.dropElsewhere(2), queue.dropElsewhere(9)], [false, true, false]);
  assert.equal(queue.current().assignment, 4);
  assert.equal(queue.offer([item(1), item(2), item(3)]), 0);
});

test("an item without pictures comes again after a while, or at once when asked for, and is forgotten with its lease", () => {
  const { clock, queue } = start();
  queue.offer([item(1), item(2)]);
  queue.setAside(1);
  queue.setAside(2);
  assert.deepEqual([queue.offer([item(1), item(2)]), queue.aside()], [0, 2]);
  clock.time += 31000;
  assert.deepEqual([queue.offer([item(1), item(2)]), queue.aside()], [2, 0]);
  queue.setAside(1);
  queue.takeBackAside();
  assert.deepEqual([queue.offer([item(1), item(2)]), queue.aside()], [1, 0]);
  queue.setAside(1);
  assert.deepEqual([queue.offer([item(2)]), queue.aside()], [0, 0]);
});

test("the order shown is told by slots, else ids, else addresses", () => {
  assert.deepEqual(orderOf({ images: [{ slot: 1, url: "b" }, { slot: 0, url: "a" }] }), [1, 0]);
  assert.deepEqual(orderOf({ images: [{ id: 7, url: "b" }] }), [7]);
});

test("each row names the guidelines that were on the screen when it was made", () => {
  let number = 1;
  const { queue } = start({ revision: () => number });
  queue.offer([item(1), item(2)]);
  const rows = [queue.answer("alignment", "pass")];
  number = 2;
  rows.push(queue.undo(), queue.skip());
  assert.deepEqual(rows.map((row) => [row.action, row.guideline_revision]), [["answer", 1], ["undo", 2], ["skip", 2]]);
});

test("what the server says is gone leaves the queue, and comes again if it is leased again", () => {
  const { queue } = start();
  queue.offer([item(1), item(2), item(3)]);
  queue.answer("alignment", "pass");
  assert.deepEqual([queue.letGo(3), queue.letGo(2), queue.current()], [false, true, null]);
  queue.letGo(1);
  assert.equal(queue.offer([item(1), item(2)]), 1);
  assert.equal(queue.current().assignment, 2);
});

test("what an earlier visit judged can be undone, until it is leased again", () => {
  const { queue } = start({ history: 2 });
  const entries = [3, 2, 1].map((number) => ({ item: item(number), record: { id: `old${number}`, assignment: number, action: "answer" } }));
  queue.restore(entries);
  queue.offer([item(4), item(2, { supersedes: "undone elsewhere" })]);
  assert.deepEqual(queue.history().map((entry) => entry.record.id), ["old3"]);
  const undone = queue.undo();
  assert.deepEqual([undone.assignment, undone.action, undone.supersedes, queue.current().assignment], [3, "undo", "old3", 3]);
  assert.equal(queue.undo(), null);
});

test("what was undone stays until it is judged, though its lease ran out long ago", () => {
  const { queue, clock } = start();
  queue.restore([2, 1].map((number) => ({ item: item(number, { expiresAt: 500 }), record: { id: `old${number}`, assignment: number, action: "answer" } })));
  queue.offer([item(3, { expiresAt: 9000 })]);
  queue.undo();
  queue.undo();
  assert.equal(queue.dropExpired(true), 0);
  assert.deepEqual(queue.first(9).map((one) => one.assignment), [1, 2, 3]);
  queue.offer([item(2, { expiresAt: 2000 })]); // The server has leased it anew.
  clock.time = 3000;
  assert.equal(queue.dropExpired(), 1);
});

test("all that is held is asked for, so that it is renewed, also where it is more than is wanted ahead", () => {
  const { queue } = start({ buffer: 10, most: 100 });
  queue.offer([1, 2, 3].map((number) => item(number)));
  assert.equal(queue.wanted(4), 14);
  queue.setAhead(2);
  assert.deepEqual([queue.wanted(), queue.wanted(4), queue.wanted(200)], [3, 7, 100]);
});

test("what an earlier visit judged and the server never took is judged afresh once it is leased again", () => {
  const { queue } = start();
  queue.restore([1, 2].map((number) => ({ item: item(number), record: { id: `old${number}`, assignment: number, action: "answer" } })));
  queue.offer([item(1), item(2, { supersedes: "undone elsewhere" })]);
  const rows = [queue.answer("alignment", "pass"), queue.answer("alignment", "pass")];
  assert.deepEqual(rows.map((row) => row.supersedes), [null, "undone elsewhere"]);
});
