import assert from "node:assert/strict";
import { test } from "node:test";
import { canSwipe, readSwipe } from "../../../static/js/rate/swipe.js";

test("a finger answers aside and far enough, and neither up, down nor steeply", () => {
  assert.deepEqual(
    [[80, 0], [-80, 20], [72, 0], [-71, 0], [90, 80], [-100, -60], [0, 300], [5, -200]].map(([aside, down]) => readSwipe(aside, down)),
    ["pass", "fail", "", "", "", "fail", "", ""],
  );
});

test("only one sticker with one question that has to be answered is swiped", () => {
  const asked = { name: "alignment", required: true };
  const freely = { name: "remark", required: false };
  assert.deepEqual(
    [
      { kind: "alignment", questions: [asked] },
      { kind: "alignment", questions: [asked, freely] },
      { kind: "alignment", questions: [asked, asked] },
      { kind: "compare", questions: [asked] },
    ].map(canSwipe),
    [true, true, false, false],
  );
});
