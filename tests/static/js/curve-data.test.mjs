import assert from "node:assert/strict";
import { test } from "node:test";
import { alignSeries } from "../../../static/js/curve-data.js";

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
