import assert from "node:assert/strict";
import { test } from "node:test";
import { createGuidelines } from "../../../static/js/rate/guidelines.js";

const news = (...numbers) => numbers.map((revision) => ({ revision, change: `change ${revision}`, at: "2026-11-23T09:30:00Z" }));
const lease = (newest, numbers = [], html = null) => ({ guideline_revision: newest, guideline_news: news(...numbers), guidelines_html: html });

test("who starts is told nothing", () => {
  const guidelines = createGuidelines({ revision: 3, news: [] });
  assert.equal(guidelines.take(lease(3)), null);
  assert.equal(guidelines.tell(), null);
  assert.equal(guidelines.revision(), 3);
});

test("what the page came with is told, and its text is there already", () => {
  const guidelines = createGuidelines({ revision: 3, news: news(2, 3) });
  assert.deepEqual(guidelines.tell(), { revision: 3, news: news(2, 3), html: null });
  assert.equal(guidelines.dismiss(), 3);
  assert.equal(guidelines.tell(), null);
});

test("a new revision is what the screen shows once it was read, and not before", () => {
  const guidelines = createGuidelines({ revision: 1 });
  guidelines.take(lease(2, [2], "<p>new</p>"));
  assert.equal(guidelines.revision(), 1);
  assert.equal(guidelines.takeQuietly(), null);
  assert.deepEqual(guidelines.tell(), { revision: 2, news: news(2), html: "<p>new</p>" });
  assert.equal(guidelines.revision(), 1);
  assert.equal(guidelines.dismiss(), 2);
  assert.equal(guidelines.revision(), 2);
});

test("what comes while a change is being read is told after it", () => {
  const guidelines = createGuidelines({ revision: 1 });
  guidelines.take(lease(2, [2], "two"));
  guidelines.tell();
  guidelines.take(lease(3, [2, 3], "three"));
  assert.equal(guidelines.tell().revision, 2);
  assert.equal(guidelines.dismiss(), 2);
  assert.equal(guidelines.revision(), 2);
  assert.deepEqual(guidelines.tell(), { revision: 3, news: news(3), html: "three" });
  assert.equal(guidelines.dismiss(), 3);
});

test("a lease that was asked for before the change was read does not tell it again, and the server hears of it", () => {
  const guidelines = createGuidelines({ revision: 1 });
  guidelines.take(lease(2, [2], "two"));
  guidelines.tell();
  guidelines.dismiss();
  assert.equal(guidelines.take(lease(2, [2], "two")), 2);
  assert.equal(guidelines.tell(), null);
  assert.equal(guidelines.take(lease(2)), null);
});

test("a change that was read on another screen is put on this one without a word", () => {
  const guidelines = createGuidelines({ revision: 1 });
  guidelines.take(lease(2, [], ""));
  assert.equal(guidelines.tell(), null);
  assert.equal(guidelines.revision(), 1);
  assert.equal(guidelines.takeQuietly(), "");
  assert.equal(guidelines.revision(), 2);
  assert.equal(guidelines.takeQuietly(), null);
});
