import assert from "node:assert/strict";
import { test } from "node:test";
import { createKeyStore, listRows, refuseKey, withKey, withoutKeys } from "../../../static/js/rate/keys.js";
import { buildKeymap, readKey } from "../../../static/js/rate/keymap.js";

const ask = (name, pass, fail) => ({ name, text: `${name}?`, required: true, choices: [{ value: "pass", label: "Pass", key: pass, accepts: true }, { value: "fail", label: "Fail", key: fail, accepts: false }] });
const alignment = { kind: "alignment", questions: [ask("alignment", "F", "J")] };
const style = { kind: "style", questions: [ask("quality", "E", "I"), ask("style", "C", "M")] };
const press = (keymap, key) => readKey(keymap, { key, code: "", ctrlKey: false, metaKey: false, altKey: false, repeat: false });
const rowOf = (about, label) => listRows(about, buildKeymap(about)).find((row) => row.label === label);

test("a chosen key takes the place of the usual one, for answers and commands", () => {
  let keys = withKey({}, "alignment", rowOf(alignment, "Fail"), "k");
  keys = withKey(keys, "alignment", rowOf(alignment, "Skip"), "PageDown");
  assert.deepEqual(keys, { commands: { skip: "PageDown" }, answers: { alignment: { alignment: { fail: "k" } } } });
  const keymap = buildKeymap({ ...alignment, keys });
  assert.deepEqual([press(keymap, "k").value, press(keymap, "K").value, press(keymap, "j"), press(keymap, "PageDown").type], ["fail", "fail", null, "skip"]);
  assert.deepEqual([keymap.choiceKeys.get("alignment\0fail"), keymap.commandKeys.get("skip")], ["k", "PageDown"]);
});

test("what is chosen for one kind of campaign leaves the others alone; commands go everywhere", () => {
  const keys = withKey(withKey({}, "alignment", rowOf(alignment, "Fail"), "k"), "alignment", rowOf(alignment, "Undo the last one"), "y");
  const keymap = buildKeymap({ ...style, keys });
  assert.deepEqual([press(keymap, "i").value, press(keymap, "y").type, press(keymap, "k")], ["fail", "undo", null]);
});

test("pass all can be moved", () => {
  const keymap = buildKeymap({ ...style, keys: withKey({}, "style", rowOf(style, "Pass all questions"), "t") });
  assert.deepEqual([press(keymap, "t").type, press(keymap, "p"), keymap.passAll], ["answer-all", null, "t"]);
});

test("questions that are asked in turn share a new key", () => {
  const choices = ["left", "right"].map((value) => ({ value, label: value, key: "" }));
  const compare = { kind: "compare", questions: [{ name: "a", text: "A", choices }, { name: "b", text: "B", choices }] };
  const keys = withKey({}, "compare", rowOf(compare, "left"), "h");
  assert.deepEqual(press(buildKeymap({ ...compare, keys }), "h").options, [{ question: "a", value: "left" }, { question: "b", value: "left" }]);
});

test("a key that means something already is refused with a sentence", () => {
  const rows = listRows(alignment, buildKeymap(alignment));
  const fail = rows.find((row) => row.label === "Fail");
  assert.equal(refuseKey("f", fail, rows), "F is already the key of “Pass”. Choose another, or give that one a new key first.");
  assert.equal(refuseKey("j", fail, rows), null);
  assert.equal(refuseKey("é", fail, rows), null);
  assert.equal(refuseKey("3", fail, rows), "Digits give reasons. Choose another key.");
  assert.match(refuseKey("Enter", fail, rows), /^Enter has a meaning of its own/);
  assert.match(refuseKey(" ", fail, rows), /^Space presses the button/);
});

test("the usual keys again, for this kind and the commands", () => {
  const keys = { commands: { undo: "y" }, answers: { alignment: { alignment: { fail: "k" } }, style: { quality: { pass: "r" } } } };
  assert.deepEqual(withoutKeys(keys, "alignment"), { commands: {}, answers: { style: { quality: { pass: "r" } } } });
});

function createStorage() {
  const kept = new Map();
  return { kept, getItem: (name) => kept.get(name) ?? null, setItem: (name, text) => kept.set(name, text), removeItem: (name) => kept.delete(name) };
}
const chosen = { commands: { undo: "y" }, answers: {} };

test("a choice made offline is kept in the browser, goes before the server's after a reload, and is sent later", async () => {
  const storage = createStorage();
  const sent = [];
  let online = false;
  const send = async (keys) => {
    if (!online) throw new TypeError("Failed to fetch");
    sent.push(keys);
    return { ok: true, status: 200 };
  };
  const options = { user: 7, stored: { commands: {}, answers: {} }, storage: () => storage, send };
  const store = createKeyStore(options);
  assert.equal(await store.set(chosen), null);
  assert.equal(store.isUnsent(), true);
  const again = createKeyStore(options);
  assert.deepEqual(again.get(), chosen);
  online = true;
  assert.equal(await again.flush(), null);
  assert.deepEqual([sent, again.isUnsent(), storage.kept.size], [[chosen], false, 0]);
});

test("what the server refuses is said, and the keys from before are back", async () => {
  const before = { commands: { skip: "n" }, answers: {} };
  const store = createKeyStore({ user: 7, stored: before, storage: createStorage, send: async () => ({ ok: false, status: 422, reason: "Twice." }) });
  assert.equal(await store.set(chosen), "Twice.");
  assert.deepEqual([store.get(), store.isUnsent()], [before, false]);
});

test("a browser that forbids storage still changes the keys", async () => {
  const store = createKeyStore({ user: 7, storage: () => { throw new Error("SecurityError"); }, send: async () => ({ ok: true, status: 200 }) });
  assert.equal(await store.set(chosen), null);
  assert.deepEqual(store.get(), chosen);
});

test("each row of the help does something: there is none of a command that this kind does not have", () => {
  const labels = (about) => listRows(about, buildKeymap(about)).filter((row) => row.command).map((row) => [row.label, row.key]);
  const dead = (about) => labels(about).filter(([, key]) => key === null);
  assert.deepEqual([dead(alignment), dead({ ...alignment, kind: "sets" }), dead({ ...alignment, kind: "pick" })], [[], [], []]);
  assert.ok(labels({ ...alignment, kind: "sets" }).some(([label, key]) => label === "Look closely at one picture" && key === "z"));
  assert.ok(!labels(alignment).some(([label]) => label === "Look closely at one picture"));
});
