import assert from "node:assert/strict";
import { test } from "node:test";
import { describeEdges, findEdges } from "../../../static/js/rate/edges.js";

/** A picture from rows of characters: # solid, + half-transparent, anything else clear. */
function draw(...rows) {
  const rgba = new Uint8ClampedArray(rows.length * rows[0].length * 4);
  rows.join("").split("").forEach((char, index) => (rgba[index * 4 + 3] = { "#": 255, "+": 200 }[char] ?? 0));
  return findEdges(rgba, rows[0].length, rows.length);
}
const painted = (found, index) => [...found.paint.slice(index * 4, index * 4 + 4)];

test("a clear place around the figure is no hole, one within it is", () => {
  const found = draw(".......", ".#####.", ".#..##.", ".#..##.", ".#####.", ".......");
  assert.deepEqual(found.holes, [4 / 42]);
  assert.deepEqual([painted(found, 0), painted(found, 16)], [[0, 0, 0, 0], [255, 140, 0, 255]]);
  assert.equal(describeEdges(found), "0.0% of the sticker is half-transparent, one hole of 9.5% of the picture.");
});

test("a bay that opens to the side is no hole, and one only by its corner is", () => {
  assert.deepEqual(draw("#####", "#..##", "#...." , "#####").holes, []);
  assert.equal(draw("######", "#..###", "#..###", "###.##", "###...").holes.length, 1);
});

test("single pixels are noise", () => {
  assert.deepEqual(draw("#####", "#.###", "#####").holes, []);
});

test("soft pixels are counted of the figure and painted", () => {
  const found = draw("....", ".##.", ".++.", "....");
  assert.deepEqual([found.soft, painted(found, 9), painted(found, 5)], [0.5, [255, 0, 200, 255], [0, 0, 0, 0]]);
  assert.equal(describeEdges(found), "50.0% of the sticker is half-transparent, no holes.");
});

test("a picture without transparency says so", () => {
  assert.equal(describeEdges(draw("##", "##")), "Nothing is transparent: the picture fills its whole square.");
});
