import assert from "node:assert/strict";
import { test } from "node:test";
import { describeAnswers, markOf, toneOf } from "../../../static/js/rate/answers.js";

const judged = { name: "alignment", choices: [{ value: "pass", label: "Pass", accepts: true }, { value: "fail", label: "Fail", accepts: false }] };
const best = { name: "best", choices: [{ value: "1", label: "1", accepts: true }, { value: "2", label: "2", accepts: true }, { value: "none", label: "None is good", accepts: false }] };
const preference = { name: "preference", choices: [{ value: "left", label: "Left" }, { value: "tie", label: "Equally good" }] };
const answer = (answers, more = {}) => ({ action: "answer", answers, ...more });

test("an answer is said in the words of its questions, with the reasons of a fail", () => {
  assert.equal(describeAnswers(answer({ alignment: "pass", preference: "left" }), [judged, preference]), "Pass, Left");
  assert.equal(describeAnswers(answer({ alignment: "fail" }, { details: { alignment: { reasons: ["Missing part", "Text in it"] } } }), [judged]), "Fail (missing part, text in it)");
});

test("a skip and a report say why, where somebody did", () => {
  assert.equal(describeAnswers({ action: "skip", answers: {} }, [judged]), "skipped");
  assert.equal(describeAnswers({ action: "flag", answers: {}, reason: "broken" }, [judged]), "reported (broken)");
});

test("a mark tells pass from fail where one of them is right, and neither elsewhere", () => {
  const marks = [answer({ alignment: "pass" }), answer({ alignment: "fail" }), answer({ best: "1+2" }), answer({ best: "none" }), answer({ preference: "tie" }), { action: "skip", answers: {} }];
  assert.deepEqual(marks.map((record) => markOf(record, [judged, best, preference])), ["pass", "fail", "pass", "fail", "even", "skip"]);
});

test("a choice has the tone of what it says", () => {
  assert.deepEqual([judged, best, preference].map((question) => question.choices.map((choice) => toneOf(choice, question))), [["pass", "fail"], ["pass", "pass", "fail"], ["even", "even"]]);
});
