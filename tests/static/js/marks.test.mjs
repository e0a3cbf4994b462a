import assert from "node:assert/strict";
import { test } from "node:test";
import { buildKeymap, readKey } from "../../../static/js/rate/keymap.js";
import { isFail } from "../../../static/js/rate/marks.js";
import { createQueue } from "../../../static/js/rate/queue.js";

const choices = [{ value: "pass", accepts: true, key: "" }, { value: "fail", accepts: false, key: "" }];
const ask = (name, more = {}) => ({ name, text: name, required: true, choices, reasons: [], needs_reason: false, marks: "", ...more });
const leased = (assignment) => ({ assignment, prompt: "a cat", images: [{ url: `/${assignment}.png` }] });

function start(...questions) {
  const queue = createQueue({ questions });
  queue.offer([leased(1), leased(2)]);
  return queue;
}

test("what was marked before the fail goes with it, and the next item starts afresh", () => {
  const queue = start(ask("alignment", { reasons: ["Wrong subject", "Missing part"], marks: "words" }));
  assert.equal(queue.toggleReason("alignment", "Wrong subject"), null);
  queue.toggleReason("alignment", "Missing part");
  queue.toggleReason("alignment", "Wrong subject");
  queue.toggleWord(1);
  queue.toggleWord(0);
  const record = queue.answer("alignment", "fail");
  assert.deepEqual(record.details, { alignment: { reasons: ["Missing part"], words: [0, 1] } });
  assert.deepEqual([queue.current().assignment, queue.marks().words, queue.marks().reasons.size], [2, [], 0]);
});

test("a pass takes no reasons along, nor does a skip", () => {
  const queue = start(ask("alignment", { reasons: ["Wrong subject"] }));
  queue.toggleReason("alignment", "Wrong subject");
  assert.equal("details" in queue.answer("alignment", "pass"), false);
  queue.toggleReason("alignment", "Wrong subject");
  assert.equal("details" in queue.skip(), false);
});

test("only failed questions keep their marks, and a point only its own question", () => {
  const queue = start(ask("quality", { reasons: ["Artefact"], marks: "point" }), ask("style", { reasons: ["Off style"] }));
  queue.toggleReason("quality", "Artefact");
  queue.toggleReason("style", "Off style");
  queue.setPoint([0.123456, 1.2]);
  queue.answer("quality", "fail");
  assert.deepEqual(queue.answer("style", "pass").details, { quality: { reasons: ["Artefact"], point: [0.1235, 1] } });
});

test("a fail that needs a reason asks for it, and the digit then submits", () => {
  const queue = start(ask("alignment", { reasons: ["Wrong subject"], needs_reason: true }));
  assert.equal(queue.answer("alignment", "fail"), null);
  assert.deepEqual([queue.asked(), queue.current().assignment], ["alignment", 1]);
  assert.deepEqual(queue.toggleReason("alignment", "Wrong subject").details, { alignment: { reasons: ["Wrong subject"] } });
  assert.deepEqual([queue.asked(), queue.current().assignment], [null, 2]);
  queue.toggleReason("alignment", "Wrong subject");
  assert.equal(queue.answer("alignment", "fail").assignment, 2);
});

test("a fail that was asked about can be taken back or turned into a pass", () => {
  const queue = start(ask("alignment", { reasons: ["Wrong subject"], needs_reason: true }));
  queue.answer("alignment", "fail");
  queue.clearDraft();
  assert.equal(queue.asked(), null);
  queue.answer("alignment", "fail");
  assert.equal(queue.answer("alignment", "pass").answers.alignment, "pass");
});

test("where no choice accepts nothing is a fail", () => {
  assert.deepEqual([isFail(ask("a"), "fail"), isFail(ask("a"), "pass"), isFail({ choices: [{ value: "left" }] }, "left")], [true, false, false]);
});

test("digits name reasons, from one question to the next, but not where a choice has them", () => {
  const questions = [
    ask("a", { reasons: ["One", "Two"], choices: [{ value: "pass", accepts: true, key: "2" }, { value: "fail", accepts: false, key: "J" }] }),
    ask("b", { reasons: ["Three"] }),
  ];
  const keymap = buildKeymap({ kind: "style", questions });
  const pressed = (key, code = "") => readKey(keymap, { key, code, ctrlKey: false, metaKey: false, altKey: false, repeat: false });
  assert.deepEqual(pressed("1"), { type: "reason", question: "a", reason: "One" });
  assert.equal(pressed("2").type, "answer");
  assert.deepEqual(pressed("3"), { type: "reason", question: "b", reason: "Three" });
  assert.deepEqual([...keymap.reasonKeys.values()], ["1", "3"]);
  // On a French keyboard the first key of that row says & without Shift.
  assert.deepEqual(pressed("&", "Digit1"), pressed("1"));
});
