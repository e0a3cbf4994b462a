import assert from "node:assert/strict";
import { test } from "node:test";
import { buildGridKeymap, chooseTile, composePage, createGrid, findNeighbour, howManyAhead, readMarkers } from "../../../static/js/rate/grid.js";
import { buildKeymap, readKey } from "../../../static/js/rate/keymap.js";
import { createQueue } from "../../../static/js/rate/queue.js";

const ask = (name, passes, fails) => ({ name, text: `${name}?`, required: true, choices: [{ value: "pass", label: "Pass", key: passes, accepts: true }, { value: "fail", label: "Fail", key: fails, accepts: false }] });
const alignment = { kind: "alignment", questions: [ask("alignment", "F", "J")] };
const style = { kind: "style", questions: [ask("quality", "E", "I"), ask("prompt", "D", "K"), ask("house", "C", "M")] };
const item = (assignment, prompt = `p${assignment}`, more = {}) => ({ assignment, item: assignment, prompt, images: [{ url: `/i/${assignment}.png`, slot: 0 }], ...more });
const many = (count) => Array.from({ length: count }, (_, index) => item(index + 1));
const names = (items) => items.map((one) => one.assignment);

function start({ config = alignment, size = 3, together = false, items = many(7) } = {}) {
  let id = 0;
  const clock = { time: 1000 };
  const now = () => clock.time;
  const newId = () => `id${(id += 1)}`;
  const queue = createQueue({ questions: config.questions, history: 200, newId, now });
  queue.offer(items);
  const grid = createGrid({ queue, markers: readMarkers(config, buildKeymap(config)), size, together, newId: () => `page${(id += 1)}`, now });
  grid.fill();
  grid.markShown();
  return { queue, grid, clock };
}

test("beside the page that is begun fifty stickers are held, in whole pages, and no more than one lease gives", () => {
  assert.deepEqual([12, 24, 48].map((size) => howManyAhead(size)), [72, 96, 96]);
  assert.deepEqual([{ saveData: true }, { deviceMemory: 2 }].map((device) => howManyAhead(12, device)), [24, 24]);
});

test("unmarked pass, marked fail; each is a row of its own on one page", () => {
  const { grid, clock, queue } = start();
  clock.time = 2000;
  grid.toggle(2, "alignment");
  clock.time = 3000;
  const rows = grid.submit();
  assert.deepEqual(rows.map(({ assignment, action, answers, page, place, page_size, decided_at }) => ({ assignment, action, answers, page, place, page_size, decided_at })), [
    { assignment: 1, action: "answer", answers: { alignment: "pass" }, page: "page1", place: 0, page_size: 3, decided_at: new Date(3000).toISOString() },
    { assignment: 2, action: "answer", answers: { alignment: "fail" }, page: "page1", place: 1, page_size: 3, decided_at: new Date(3000).toISOString() },
    { assignment: 3, action: "answer", answers: { alignment: "pass" }, page: "page1", place: 2, page_size: 3, decided_at: new Date(3000).toISOString() },
  ]);
  assert.deepEqual(new Set(rows.map((row) => row.shown_at)), new Set([new Date(1000).toISOString()]));
  assert.equal(new Set(rows.map((row) => row.id)).size, 3);
  assert.equal(queue.length(), 4);
  grid.fill();
  assert.deepEqual(names(grid.items()), [4, 5, 6]);
  assert.deepEqual(names(grid.next()), [7]);
  assert.deepEqual(grid.submit(), [], "nobody has seen it");
});

test("of three questions each is marked by its own key, and cleared by the other", () => {
  const { grid } = start({ config: style });
  const keymap = buildGridKeymap(readMarkers(style, buildKeymap(style)), buildKeymap(style));
  const read = (key) => readKey(keymap, { key });
  assert.deepEqual([read("i"), read("k"), read("c"), read(" "), read("u"), read("p")], [
    { type: "toggle", question: "quality" }, { type: "toggle", question: "prompt" }, { type: "clear", question: "house" }, { type: "toggle" }, { type: "undo" }, null,
  ]);
  for (const question of ["quality", "house", "prompt"]) grid.toggle(1, question);
  grid.toggle(1, "prompt");
  grid.toggle(1, "prompt", false);
  assert.deepEqual([grid.countMarked(), grid.isMarked(2)], [1, false]);
  assert.deepEqual(grid.submit().map((row) => Object.values(row.answers).join()), ["fail,pass,fail", "pass,pass,pass", "pass,pass,pass"]);
});

test("skipping and reporting wait for the page, and can be taken back", () => {
  const { grid } = start();
  grid.setAside(1, "skip");
  grid.setAside(2, "flag", "broken");
  grid.setAside(3, "skip");
  grid.setAside(3, "skip");
  assert.equal(grid.countMarked(), 2);
  assert.deepEqual(grid.submit().map((row) => [row.action, row.reason, row.answers]), [["skip", null, {}], ["flag", "broken", {}], ["answer", null, { alignment: "pass" }]]);
});

test("a page that is taken back comes up as it was, before the one that was begun", () => {
  const { grid } = start();
  grid.toggle(2, "alignment");
  const rows = grid.submit();
  grid.fill();
  grid.markShown();
  grid.toggle(5, "alignment");
  const undone = grid.undoPage();
  assert.deepEqual(new Set(undone.map((row) => [row.action, row.assignment, row.supersedes].join())), new Set(rows.map((row) => ["undo", row.assignment, row.id].join())));
  grid.fill();
  assert.deepEqual([names(grid.items()), grid.isMarked(2), grid.isMarked(1)], [[1, 2, 3], true, false]);
  grid.markShown();
  const again = grid.submit();
  assert.deepEqual(again.map((row) => row.supersedes).sort(), undone.map((row) => row.id).sort());
  grid.fill();
  assert.deepEqual([names(grid.items()), grid.isMarked(5)], [[4, 5, 6], true], "what was marked before stays so");
});

test("one sticker that is taken back joins the page that is there; its page is the shorter for it", () => {
  const { grid } = start();
  grid.toggle(2, "alignment");
  grid.submit();
  grid.fill();
  assert.equal(grid.undoOne(2).action, "undo");
  assert.deepEqual([names(grid.items()), grid.isMarked(2), grid.undoOne(2)], [[2, 4, 5, 6], true, null]);
  assert.deepEqual(grid.undoPage().map((row) => row.assignment), [3, 1]);
  assert.deepEqual(grid.undoPage(), []);
});

test("what another tab has judged leaves the page, and the rest stays where it is", () => {
  const { grid, queue } = start();
  queue.dropElsewhere(2);
  assert.deepEqual([grid.refresh(), grid.refresh(), names(grid.items())], [true, false, [1, 3]]);
});

test("a page that is begun stays whole when its leases run out; the pages behind it go", () => {
  const items = [1, 2, 3, 4, 5].map((number) => item(number, "p", { expiresAt: 2000 }));
  const { grid, queue, clock } = start({ items, size: 3 });
  clock.time = 5000;
  assert.equal(grid.dropExpired(), 2);
  grid.toggle(1, "alignment");
  assert.equal(grid.dropExpired(true), 0);
  grid.toggle(1, "alignment");
  assert.deepEqual([grid.dropExpired(true), queue.length()], [3, 0]);
});

test("another size makes other pages of the same stickers, with their marks", () => {
  const { grid } = start();
  grid.toggle(3, "alignment");
  grid.arrange(5, false);
  grid.fill();
  assert.deepEqual([names(grid.items()), grid.countMarked()], [[1, 2, 3, 4, 5], 1]);
});

test("together, a page has whole prompts, and never one whose others may still come", () => {
  const items = [item(1, "a"), item(2, "b"), item(3, "c"), item(4, "a"), item(5, "b"), item(6, "c")];
  assert.deepEqual(names(composePage(items, 5, true)), [1, 4, 2, 5]);
  assert.deepEqual(names(composePage(items, 12, true)), [1, 4, 2, 5]);
  assert.deepEqual(names(composePage(items.slice(0, 1), 12, true)), [1]);
  assert.deepEqual(names(composePage([1, 2, 3].map((number) => item(number, "a")), 2, true)), [1, 2]);
  assert.deepEqual(names(composePage(items, 4, false)), [1, 2, 3, 4]);
  const { grid, queue } = start({ items, size: 4, together: true });
  assert.deepEqual([grid.groups().map(names), names(queue.first(4))], [[[1, 4], [2, 5]], [1, 4, 2, 5]]);
});

test("arrows go to the neighbour, also where rows have different lengths", () => {
  const boxes = [[0, 0], [10, 0], [20, 0], [0, 30], [10, 30]].map(([x, y]) => ({ x, y }));
  const go = (index, direction) => findNeighbour(boxes, index, direction);
  assert.deepEqual([go(0, "right"), go(2, "right"), go(4, "right"), go(0, "left")], [1, 3, 4, 0]);
  assert.deepEqual([go(1, "down"), go(2, "down"), go(3, "down"), go(4, "up"), go(0, "up")], [4, 4, 3, 1, 0]);
  assert.deepEqual([go(3, "first"), go(1, "last")], [0, 4]);
});

test("tiles are as large as fit, and never too small to see", () => {
  const ones = (count) => Array(count).fill(1);
  const large = { width: 1300, height: 600 };
  const sizes = [12, 24, 48].map((count) => chooseTile({ ...large, groups: ones(count) }));
  assert.ok(sizes[0] > sizes[1] && sizes[1] > sizes[2] && sizes[2] >= 96);
  for (const [index, count] of [12, 24, 48].entries()) {
    const columns = Math.floor((1300 + 8) / (sizes[index] + 8));
    if (sizes[index] > 96) assert.ok(Math.ceil(count / columns) * (sizes[index] + 40 + 8) - 8 <= 600);
  }
  assert.equal(chooseTile({ width: 328, height: 400, groups: ones(24) }), 104, "three in a row on a telephone");
});

test("pages of an earlier visit are taken back page by page", () => {
  const { queue, grid } = start({ items: many(2) });
  const entries = [[5, "b"], [4, "b"], [3, "a"]].map(([number, page]) => ({ item: item(number), record: { id: `old${number}`, assignment: number, action: "answer", answers: { alignment: "fail" }, page } }));
  queue.restore(entries);
  grid.restore(entries);
  assert.deepEqual(grid.undoPage().map((row) => row.supersedes), ["old5", "old4"]);
  assert.deepEqual(names(grid.items()), [4, 5]);
  assert.ok(grid.isMarked(4));
  assert.deepEqual(grid.undoPage().map((row) => row.supersedes), ["old3"]);
});

test("a skip with a reason stays one, and says it in its row", () => {
  const { grid } = start();
  grid.setAside(1, "skip", "I cannot decide");
  grid.setAside(1, "skip", "Too small");
  grid.setAside(2, "skip");
  grid.setAside(2, "skip");
  assert.deepEqual(grid.submit().slice(0, 2).map(({ action, reason }) => [action, reason]), [["skip", "Too small"], ["answer", null]]);
});
