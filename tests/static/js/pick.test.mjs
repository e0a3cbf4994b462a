import assert from "node:assert/strict";
import { test } from "node:test";
import { buildKeymap, readKey } from "../../../static/js/rate/keymap.js";
import { readPicks, togglePick } from "../../../static/js/rate/pick.js";
import { createQueue } from "../../../static/js/rate/queue.js";

const question = { name: "best", required: true, multiple: true, choices: [...["1", "2", "3"].map((value) => ({ value, label: value, key: value, accepts: true })), { value: "none", label: "None is good", key: "N", accepts: false }] };
const item = (assignment, count = 3) => ({ assignment, item: assignment, prompt: "p", images: Array.from({ length: count }, (_, slot) => ({ url: `/${assignment}-${slot}.png`, slot })) });

test("places come and go in their order; none stands alone", () => {
  const steps = ["3", "1", "3", "none", "2", "2"];
  const values = [];
  steps.reduce((value, pressed) => {
    values.push(togglePick(question, value, pressed, 3));
    return values.at(-1);
  }, undefined);
  assert.deepEqual(values, ["3", "1+3", "1", "none", "2", null]);
  assert.deepEqual([readPicks("1+3"), readPicks(undefined)], [["1", "3"], []]);
});

test("a place beyond the pictures changes nothing", () => {
  assert.equal(togglePick(question, "1", "3", 2), "1");
  assert.equal(togglePick(question, undefined, "3", 2), null);
});

test("digits choose, Enter submits what is chosen, N says that none is good", () => {
  const queue = createQueue({ questions: [question] });
  queue.offer([item(1), item(2)]);
  const keymap = buildKeymap({ kind: "pick", questions: [question] });
  assert.deepEqual([readKey(keymap, { key: "2" }), readKey(keymap, { key: "Enter" })], [{ type: "answer", question: "best", value: "2" }, { type: "submit" }]);
  assert.equal(queue.submit(), null);
  assert.equal(queue.answer("best", "3"), null);
  assert.equal(queue.answer("best", "1"), null);
  const row = queue.submit();
  assert.deepEqual([row.answers, row.order], [{ best: "1+3" }, [0, 1, 2]]);
  assert.deepEqual(queue.answer("best", "none").answers, { best: "none" });
});
