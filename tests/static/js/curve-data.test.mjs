import assert from "node:assert/strict";
import { test } from "node:test";
import { alignSeries, mergeAnswer } from "../../../static/js/curve-data.js";

test("series with their own x share one sorted table, gaps as null", () => {
  const series = [{ points: [[3, 30], [1, 10]] }, { points: [[2, 5], [3, 6]] }];
  assert.deepEqual(alignSeries({ series }), [[1, 2, 3], [10, null, 30], [null, 5, 6]]);
});

test("a logarithmic axis has no place for zero, and no axis for what is not a number", () => {
  const series = [{ points: [[1, 0], [2, -1], [3, NaN], [4, null], [5, 2]] }];
  assert.deepEqual(alignSeries({ series, log: true }), [[1, 2, 3, 4, 5], [null, null, null, null, 2]]);
});

test("nothing is a table without rows", () => {
  assert.deepEqual(alignSeries({ series: [] }), [[]]);
});

test("a partial answer replaces the end of its series and leaves the others", () => {
  const known = { partial: false, seen: "a", done: false, series: [{ label: "one", points: [[1, 1], [4, 4], [5, 5]] }, { label: "two", points: [[2, 2]] }] };
  const answer = { partial: true, seen: "b", done: true, series: [{ label: "one", from: 4, points: [[4, 40], [6, 6]] }] };
  const merged = mergeAnswer(known, answer);
  assert.deepEqual(merged.series, [{ label: "one", points: [[1, 1], [4, 40], [6, 6]] }, { label: "two", points: [[2, 2]] }]);
  assert.deepEqual([merged.seen, merged.done], ["b", true]);
});

test("a whole answer stands alone, and a partial one with a new series is not enough", () => {
  const whole = { partial: false, series: [{ label: "one", points: [[1, 1]] }] };
  assert.equal(mergeAnswer({ series: [{ label: "two", points: [[2, 2]] }] }, whole), whole);
  assert.equal(mergeAnswer(whole, { partial: true, series: [{ label: "two", from: 1, points: [] }] }), null);
  assert.equal(mergeAnswer(null, { partial: true, series: [{ label: "two", from: 1, points: [] }] }), null);
});
