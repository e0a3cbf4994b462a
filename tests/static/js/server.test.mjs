import assert from "node:assert/strict";
import { test } from "node:test";
import { KEPT_ALIVE, createServer, isAway } from "../../../static/js/rate/server.js";

const config = { csrf: "old", user_id: 7, lease_url: "/lease", judgments_url: "/judgments" };

/** A site that takes one token, and whose page belongs to one person. */
function createSite({ token, owner }) {
  const tokens = [];
  return { tokens, async fetch(url, options = {}) {
    if (url === "/page") return new Response(JSON.stringify({ csrf: token, user_id: owner }));
    tokens.push(options.headers["X-CSRFToken"]);
    if (options.headers["X-CSRFToken"] !== token) return new Response("", { status: 403 });
    return Response.json(url === "/lease" ? { questions: [], items: [] } : { results: [] });
  } };
}

const connect = (site) => createServer({ config, fetch: site.fetch, readConfig: (text) => JSON.parse(text), pageUrl: "/page" });

test("after signing in again the page's new token is taken", async () => {
  const site = createSite({ token: "new", owner: 7 });
  const server = connect(site);
  assert.equal((await server.sendJudgments([])).ok, true);
  assert.equal((await server.sendJudgments([])).ok, true);
  assert.deepEqual(site.tokens, ["old", "new", "new"]);
});

test("somebody else's token is never taken", async () => {
  const site = createSite({ token: "new", owner: 8 });
  assert.equal((await connect(site).sendJudgments([])).status, 403);
  assert.deepEqual(site.tokens, ["old"]);
});

test("an account that may not rate is told from a session that has ended, and no token is fetched for it", async () => {
  const asked = [];
  const server = createServer({ config, pageUrl: "/page", readConfig: () => null, fetch: async (url) => {
    asked.push(url);
    return Response.json({ detail: "Your role does not include rating.", code: "no-rater-role" }, { status: 403 });
  } });
  const said = [await server.sendJudgments([]), await server.lease(1)].map(({ ok, status, isRoleLost }) => [ok, status, isRoleLost]);
  assert.deepEqual(said, [[false, 403, true], [false, 403, true]]);
  assert.deepEqual(asked, ["/judgments", "/lease"]);
});

test("leases are told in this computer's time", async () => {
  const server = createServer({ config, pageUrl: "/page", readConfig: () => null, fetch: async () => Response.json({ questions: [], items: [{ expires_at: "2030-01-01T00:10:00Z" }] }, { headers: { Date: "Tue, 01 Jan 2030 00:00:00 GMT" } }) });
  const { items } = await server.lease(1);
  assert.ok(Math.abs(items[0].expiresAt - Date.now() - 600000) < 2000);
});

test("a connection that never answers is given up, and so is an answer that never ends", async () => {
  const hang = (signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const alive = setTimeout(() => {}, 10000); // The signal's own timer keeps no process alive.
  const silent = createServer({ config, pageUrl: "/page", readConfig: () => null, patience: 20, fetch: (_, { signal }) => hang(signal) });
  await assert.rejects(silent.sendJudgments([]), { name: "TimeoutError" });
  await assert.rejects(silent.lease(1), { name: "TimeoutError" });
  const endless = createServer({ config, pageUrl: "/page", readConfig: () => null, patience: 20, fetch: async (_, { signal }) => ({ ok: true, status: 200, headers: new Headers(), json: () => hang(signal) }) });
  assert.equal((await endless.sendJudgments([])).results, undefined);
  assert.equal((await endless.lease(1)).ok, false);
  clearTimeout(alive);
});

test("an answer to an example says what is right, or why not, and whether nobody has answered", async () => {
  const answers = [Response.json({ right: true }), Response.json({ detail: "It has changed." }, { status: 409 }), new Response("<h1>Bad gateway</h1>", { status: 502 })];
  const server = createServer({ config: { ...config, url: "/answer" }, fetch: async () => answers.shift() });
  const given = [await server.answerExample({}), await server.answerExample({}), await server.answerExample({})];
  assert.deepEqual(given.map(({ ok, status, reason }) => [ok, reason, isAway(status)]), [[true, null, false], [false, "It has changed.", false], [false, null, true]]);
  assert.equal(isAway(0), true);
});

test("what is under way survives leaving the page as long as all of it together has as few bytes as browsers allow", async () => {
  const asked = [];
  const answers = [];
  const fetch = (url, { keepalive, body }) => {
    asked.push([keepalive, new TextEncoder().encode(body).length]);
    return new Promise((answer) => answers.push(() => answer(Response.json({ results: [] }))));
  };
  const server = createServer({ config, pageUrl: "/page", readConfig: () => null, fetch });
  // Fifty fails with eight reasons of forty characters each, and what else a judgment says: few characters, many bytes.
  const fails = Array.from({ length: 50 }, () => ({ reasons: Array(8).fill("漢".repeat(40)), order: "x".repeat(450) }));
  assert.ok(JSON.stringify({ judgments: fails }).length < 60000);
  const sent = [server.sendJudgments(fails), server.sendJudgments(["x".repeat(30000)]), server.sendJudgments(["x".repeat(30000)]), server.sendJudgments(["x"])];
  assert.deepEqual(asked.map(([keepalive]) => keepalive), [false, true, false, true]);
  assert.ok(asked.filter(([keepalive]) => keepalive).reduce((sum, [, size]) => sum + size, 0) <= KEPT_ALIVE && KEPT_ALIVE < 65536);
  for (const answer of answers.splice(0)) answer();
  await Promise.all(sent);
  // What was answered, or broke, is under way no more.
  const broken = createServer({ config, pageUrl: "/page", readConfig: () => null, fetch: async (url, { keepalive }) => { asked.push([keepalive]); throw new TypeError("Failed to fetch"); } });
  for (let times = 0; times < 3; times += 1) await assert.rejects(broken.sendJudgments(["x".repeat(50000)]));
  assert.deepEqual(asked.slice(-3), [[true], [true], [true]]);
  const last = server.sendJudgments(["x".repeat(50000)]);
  assert.equal(asked.at(-1)[0], true);
  answers[0]();
  await last;
});
