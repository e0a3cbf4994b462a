import assert from "node:assert/strict";
import { test } from "node:test";
import { buildKeymap, nameKey, pickOption, normaliseKey, readKey } from "../../../static/js/rate/keymap.js";

const pressed = (key, more = {}) => ({ key, code: "", ctrlKey: false, metaKey: false, altKey: false, repeat: false, ...more });
const alignment = { kind: "alignment", questions: [{ name: "alignment", text: "?", required: true, choices: [{ value: "pass", label: "Pass", key: "F", accepts: true }, { value: "fail", label: "Fail", key: "J", accepts: false }] }] };
const pair = (name, keys) => ({ name, text: name, required: true, choices: [{ value: "pass", label: "Pass", key: keys[0], accepts: true }, { value: "fail", label: "Fail", key: keys[1], accepts: false }] });

test("the server's keys answer, whatever their case", () => {
  const keymap = buildKeymap(alignment);
  const pass = { type: "answer", question: "alignment", value: "pass" };
  assert.deepEqual(readKey(keymap, pressed("f")), pass);
  assert.deepEqual(readKey(keymap, pressed("F")), pass);
  assert.equal(keymap.choiceKeys.get("alignment\0fail"), "j");
});

test("commands have their keys, and help works with shift", () => {
  const keymap = buildKeymap(alignment);
  const seen = ["u", "Backspace", "s", "b", "z", "g", "?", "x"].map((key) => readKey(keymap, pressed(key)).type);
  assert.deepEqual(seen, ["undo", "undo", "skip", "background", "zoom", "guidelines", "help", "flag"]);
});

test("chords, held keys, busy fields and unknown keys mean nothing", () => {
  const keymap = buildKeymap(alignment);
  for (const event of [pressed("f", { ctrlKey: true }), pressed("f", { metaKey: true }), pressed("f", { altKey: true }), pressed("f", { repeat: true }), pressed("f", { isComposing: true }), pressed("k"), pressed("Tab")]) {
    assert.equal(readKey(keymap, event), null, JSON.stringify(event));
  }
  assert.equal(readKey(keymap, pressed("f"), true), null);
  assert.equal(readKey(keymap, pressed("z", { repeat: true })).type, "zoom");
});

test("a keyboard of another script answers by the place of the key", () => {
  assert.equal(readKey(buildKeymap(alignment), pressed("а", { code: "KeyF" })).value, "pass");
});

test("a Latin letter is never read by its place", () => {
  // On a Dvorak keyboard the key at F's place says U, which undoes.
  assert.equal(readKey(buildKeymap(alignment), pressed("u", { code: "KeyF" })).type, "undo");
});

test("a choice's key wins over a command's, which keeps its second one", () => {
  const keymap = buildKeymap({ kind: "style", questions: [pair("quality", ["u", "s"])] });
  assert.equal(readKey(keymap, pressed("u")).type, "answer");
  assert.equal(keymap.commandKeys.get("undo"), "Backspace");
  assert.equal(keymap.commandKeys.has("skip"), false);
});

test("three questions without keys get a pair each, and one key passes all", () => {
  const keymap = buildKeymap({ kind: "style", questions: ["quality", "alignment", "style"].map((name) => pair(name, [null, null])) });
  assert.equal(new Set(keymap.choiceKeys.values()).size, 6);
  assert.deepEqual(readKey(keymap, pressed(keymap.passAll)), { type: "answer-all", answers: { quality: "pass", alignment: "pass", style: "pass" } });
});

test("passing all needs an accepting choice in every question, and more than one question", () => {
  assert.equal(buildKeymap(alignment).passAll, null);
  const plain = { name: "plain", text: "", required: true, choices: [{ value: "a", label: "A", key: "1" }] };
  assert.equal(buildKeymap({ kind: "style", questions: [pair("quality", ["q", "a"]), plain] }).passAll, null);
});

test("comparisons fall on the arrows, by name or by sign", () => {
  const choices = [["left", "ArrowLeft"], ["right", "→"], ["tie", "up"], ["both_bad", null]].map(([value, key]) => ({ value, label: value, key }));
  const keymap = buildKeymap({ kind: "compare", questions: [{ name: "better", text: "?", choices, required: true }] });
  assert.deepEqual(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].map((key) => readKey(keymap, pressed(key))?.value), ["left", "right", "tie", "both_bad"]);
});

test("a comparison's questions share the arrows and are answered in turn", () => {
  const choices = [["left", "ArrowLeft"], ["right", "ArrowRight"]].map(([value, key]) => ({ value, label: value, key }));
  const keymap = buildKeymap({ kind: "compare", questions: ["style", "alignment"].map((name) => ({ name, text: name, choices, required: true })) });
  const action = readKey(keymap, pressed("ArrowRight"));
  assert.deepEqual(pickOption(action, {}), { question: "style", value: "right" });
  assert.deepEqual(pickOption(action, { style: "left" }), { question: "alignment", value: "right" });
  assert.equal(keymap.choiceKeys.size, 4);
});

test("keys are named as they are printed", () => {
  assert.deepEqual(["f", "ArrowLeft", " ", "Backspace"].map(nameKey), ["F", "←", "Space", "⌫"]);
  assert.equal(normaliseKey(undefined), "");
});
