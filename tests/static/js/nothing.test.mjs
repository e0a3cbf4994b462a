import assert from "node:assert/strict";
import { test } from "node:test";
import { whyNothing } from "../../../static/js/rate/nothing.js";

const plain = { isRoleLost: false, isGone: false, reason: null, examplesUrl: null, status: undefined, failures: 0, aside: 0, isExhausted: false };
const title = (known) => whyNothing({ ...plain, ...known }, () => {})?.title ?? null;

test("of several reasons the one is said that holds whatever becomes of the others", () => {
  const known = [["isExhausted", true], ["aside", 2], ["failures", 1], ["status", 401], ["isGone", true], ["examplesUrl", "/examples/"], ["isRoleLost", true]];
  const said = known.map((_, count) => title({ status: 0, ...Object.fromEntries(known.slice(0, count + 1)) }));
  assert.deepEqual(said, ["Nothing is left for you here", "Pictures cannot be loaded", "The server cannot be reached", "You are signed out", "This campaign is not open to you", "Examples come first", "This account may not rate now"]);
  assert.equal(title({}), null); // The first items are on their way.
});

test("the server's own words come first, and only what is judged to the end is over", () => {
  assert.equal(whyNothing({ ...plain, isGone: true, reason: "It was paused." }).text, "It was paused.");
  assert.match(whyNothing({ ...plain, isGone: true }).text, /^It was paused or closed/);
  assert.deepEqual([{ isExhausted: true }, { isGone: true }].map((known) => whyNothing({ ...plain, ...known }).isOver ?? false), [true, false]);
});
