import assert from "node:assert/strict";
import { test } from "node:test";
import { planAfterPaint } from "../../../static/js/rate/after-paint.js";

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

test("what is asked for before one paint is done once after it, with the last words", async (t) => {
  const frames = [];
  globalThis.requestAnimationFrame = (work) => frames.push(work);
  t.after(() => delete globalThis.requestAnimationFrame);
  const done = [];
  const plan = planAfterPaint((words) => done.push(words));
  plan("first");
  plan("second");
  plan();
  assert.deepEqual([done, frames.length], [[], 1]);
  frames[0]();
  assert.deepEqual(done, []); // The frame is not painted yet.
  await pause(5);
  assert.deepEqual(done, ["second"]);
  plan();
  await pause(300); // No frame comes, as in the background.
  assert.deepEqual(done, ["second", undefined]);
});
