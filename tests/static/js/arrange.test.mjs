import assert from "node:assert/strict";
import { test } from "node:test";
import { arrange, sizeOf } from "../../../static/js/rate/arrange.js";

const columns = (count, width, height) => arrange(count, { width, height }).columns;

test("so many columns as make the pictures largest", () => {
  assert.deepEqual([columns(1, 900, 400), columns(3, 340, 160), columns(3, 340, 500), columns(4, 340, 400), columns(8, 900, 400)], [1, 3, 2, 2, 4]);
});

test("two are compared side by side, whatever the room", () => assert.equal(columns(2, 200, 900), 2));

test("what is laid out fits, and is never too small to see", () => {
  for (const count of [1, 2, 3, 4, 5, 6, 8, 10, 16]) {
    const { columns: across, side } = arrange(count, { width: 1100, height: 700 });
    const rows = Math.ceil(count / across);
    assert.ok(across * (side + 16) + 8 * (across - 1) <= 1100 && rows * (side + 16) + 8 * (rows - 1) <= 700, `${count}`);
  }
  assert.equal(arrange(5, { width: 60, height: 60 }).side, 48);
});

test("a small picture grows six times at most, a large one twice, and neither is bent", () => {
  assert.deepEqual(sizeOf({ naturalWidth: 64, naturalHeight: 32 }, 1000), [384, 192]);
  assert.deepEqual(sizeOf({ naturalWidth: 256, naturalHeight: 512 }, 2000), [512, 1024]);
  assert.deepEqual(sizeOf({ naturalWidth: 512, naturalHeight: 512 }, 300), [300, 300]);
});
