// Wires the rater together. The key path: key -> record in memory -> outbox -> decoded picture swapped in -> paint. The rest waits for the paint.
import { backOff, createMemoryStore, createOutbox } from "./outbox.js";
import { asksInTurn, buildKeymap, pickOption, readKey } from "./keymap.js";
import { createBrowserStore, createTabLock } from "./storage.js";
import { createPrefetch } from "./prefetch.js";
import { createQueue } from "./queue.js";
import { createServer } from "./server.js";
import { createView, loadPicture, readConfig } from "./view.js";

const AHEAD = 10;
const config = readConfig();
const user = String(config.user_id);
const keymap = buildKeymap(config);
const queue = createQueue({ questions: config.questions });
const prefetch = createPrefetch({ load: loadPicture });
const server = createServer({ config, readConfig, pageUrl: location.href });
const view = createView({ config, keymap, act });
const progress = { done: config.progress?.done ?? 0, total: config.progress?.total ?? 0, left: config.progress?.left_for_me ?? 0 };
const decisions = []; // Moments of the last answers, in ms, for the pace.

let ready = false; // Whether the current item's pictures are on the screen.
let leasing = false;
let leaseFailures = 0;
let nextLeaseAt = 0;
let exhausted = false;
let onlyPending = false; // The last lease held nothing but what is on its way to the server.
let gone = false; // The campaign is closed, or no longer this person's.
let afterPaint = null;

const outbox = createOutbox({
  user,
  store: globalThis.indexedDB ? createBrowserStore() : createMemoryStore(),
  send: (judgments) => server.sendJudgments(judgments),
  lock: createTabLock(`atelier-outbox-${user}`),
  onChange: () => settleAfterPaint(),
  onSettled(row, result) {
    if (result.status !== "rejected") return;
    queue.forget(row.judgment);
    view.showHistory(queue.history());
  },
});

// Tabs of one person are handed the same leases: what one has judged, the others need not show.
const siblings = globalThis.BroadcastChannel ? new BroadcastChannel(`atelier-rate-${user}`) : null;
siblings?.addEventListener("message", ({ data }) => {
  if (!queue.dropElsewhere(data)) return;
  showCurrent();
  settleAfterPaint();
});

// ---- the key path ----
function commit(record, about) {
  outbox.add(record, about);
  showCurrent();
  if (record.action !== "undo") siblings?.postMessage(record.assignment);
  if (record.action === "undo") {
    count(-1);
  } else {
    count(1);
    decisions.push(Date.now());
    if (decisions.length > 60) decisions.shift();
  }
  settleAfterPaint(`${record.action === "undo" ? "Undone" : view.describe(record)}. ${queue.current() ? queue.current().prompt : ""}`);
}

function count(step) {
  progress.done += step;
  progress.left = Math.max(0, progress.left - step);
}

function showCurrent() {
  const item = queue.current();
  const pictures = item && prefetch.pictures(item);
  ready = Boolean(pictures);
  if (pictures) {
    view.show(item, pictures, queue.draft());
    requestAnimationFrame(() => queue.current() === item && queue.markShown());
  } else if (item) {
    awaitPictures(item);
  } else {
    showNothing();
  }
}

function act(action) {
  const about = queue.current()?.prompt;
  const record = decide(action);
  if (record) commit(record, record.action === "undo" ? queue.current().prompt : about);
}

/** What an action does; returns the record that it makes, if it makes one. */
function decide(action) {
  switch (action.type) {
    case "answer": {
      if (!ready) return null;
      const { question, value } = pickOption(action, queue.draft());
      const record = queue.answer(question, value);
      if (!record) view.setPressed(queue.draft());
      return record;
    }
    case "answer-all":
      return ready ? queue.answerAll(action.answers) : null;
    case "skip":
      return ready ? queue.skip() : null;
    case "flag":
      if (!ready) return null;
      if (action.reason) return queue.flag(action.reason);
      view.openDialog("rate-flag");
      return null;
    case "undo":
      if (asksInTurn(config) && action.assignment === undefined && queue.clearDraft()) {
        view.setPressed({});
        return null;
      }
      return queue.undo(action.assignment);
    case "background":
      view.nextGround();
      return null;
    case "zoom":
      view.setZoom(true);
      return null;
    case "guidelines":
      view.toggleGuidelines();
      return null;
    case "help":
      view.openDialog("rate-help");
      return null;
    case "dismiss":
      outbox.dismiss(action.id);
      return null;
    default:
      return null;
  }
}

// ---- what waits for the paint ----
function settleAfterPaint(words) {
  if (afterPaint) {
    afterPaint.words = words ?? afterPaint.words;
    return;
  }
  afterPaint = { words };
  // The timer carries the work of a tab in the background, where no frame is painted.
  const fallback = setTimeout(settle, 250);
  requestAnimationFrame(() => setTimeout(() => {
    clearTimeout(fallback);
    settle();
  }));
}

function settle() {
  if (!afterPaint) return;
  const { words } = afterPaint;
  afterPaint = null;
  if (words !== undefined) {
    view.showHistory(queue.history());
    view.announce(words);
  }
  view.showProgress({ ...progress, total: Math.max(progress.total, progress.done), pace: readPace() });
  view.showOutbox(outbox.snapshot());
  if (onlyPending && !outbox.snapshot().waiting) {
    onlyPending = false;
    nextLeaseAt = 0;
  }
  prefetchAhead();
  refill();
}

/** Answers a minute over the last minutes; breaks of more than a minute do not count. */
function readPace() {
  let spent = 0;
  let steps = 0;
  for (let index = 1; index < decisions.length; index += 1) {
    const step = decisions[index] - decisions[index - 1];
    if (step > 60000) continue;
    spent += step;
    steps += 1;
  }
  return steps < 4 ? 0 : Math.max(1, Math.round(steps / (spent / 60000)));
}

function prefetchAhead() {
  const item = queue.current();
  if (item) prefetch.want([item, ...queue.upcoming(AHEAD)]);
}

function awaitPictures(item) {
  view.showLoading(item);
  prefetchAhead();
  prefetch.ready(item).then(
    () => queue.current() === item && !ready && showCurrent(),
    () => {
      if (queue.current() !== item) return;
      if (!navigator.onLine) {
        setTimeout(() => queue.current() === item && !ready && awaitPictures(item), 3000);
        return;
      }
      queue.setAside(item.assignment);
      view.announce("A picture could not be loaded. The item was put aside.");
      showCurrent();
      refill();
    },
  );
}

// ---- leases ----
async function refill() {
  if (leasing || gone || !queue.needsMore() || Date.now() < nextLeaseAt || (exhausted && queue.length())) return;
  leasing = true;
  try {
    queue.dropExpired();
    // The answer may be from before these arrive at the server, and come after: then it holds items that are judged.
    const unsent = outbox.pendingAssignments();
    const answer = await server.lease(queue.wanted(outbox.snapshot().waiting));
    if (answer.ok) takeLease(answer, unsent);
    else refuseLease(answer.status, answer.reason);
  } catch {
    refuseLease(0);
  } finally {
    leasing = false;
  }
  if (!queue.current() && !gone) setTimeout(refill, Math.max(0, nextLeaseAt - Date.now()) + 20);
}

function takeLease(answer, unsent) {
  leaseFailures = 0;
  const { waiting } = outbox.snapshot();
  const added = queue.offer(answer.items, new Set([...unsent, ...outbox.pendingAssignments()]));
  exhausted = answer.items.length === 0 || (added === 0 && !queue.length() && !waiting && !unsent.size);
  onlyPending = added === 0 && !exhausted;
  // What was on its way has arrived meanwhile: the next answer knows of it.
  const arrived = !waiting && unsent.size > 0;
  nextLeaseAt = added || arrived ? 0 : Date.now() + (exhausted ? 60000 : 3000);
  prefetchAhead();
  if (!ready) showCurrent();
}

function refuseLease(status, reason) {
  leaseFailures += 1;
  nextLeaseAt = Date.now() + backOff(leaseFailures);
  gone = [404, 409, 410].includes(status);
  exhausted = false;
  if (!queue.current()) showNothing(status, reason);
}

function showNothing(status, reason) {
  const home = { label: "To the start", href: "/", primary: true };
  const again = { label: "Look again", run: lookAgain };
  if (gone) {
    view.showMessage("over", "This campaign is not open to you", reason ?? "It was paused or closed, or you are no longer one of its raters. What you judged is kept.", [home]);
  } else if (status === 401 || status === 403) {
    view.showMessage("error", "You are signed out", "Sign in again in another tab, then go on here. Nothing is lost.", [{ label: "Go on", run: lookAgain, primary: true }]);
  } else if (status !== undefined && leaseFailures > 0) {
    view.showMessage("error", "The server cannot be reached", "It is tried again every few seconds. Your judgments are kept in this browser.", [{ label: "Try now", run: lookAgain, primary: true }]);
  } else if (exhausted) {
    progress.left = 0;
    view.showMessage("over", "Nothing is left for you here", "Thank you. Everything that this campaign had for you is judged.", [home, again]);
  } else {
    view.showLoading(null);
  }
}

function lookAgain() {
  nextLeaseAt = 0;
  exhausted = false;
  view.showLoading(null);
  outbox.retry();
  refill();
}

// ---- keys, and the life of the page ----
function isBusy(event) {
  if (document.querySelector("dialog[open]")) return true;
  const target = event.target;
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

document.addEventListener("keydown", (event) => {
  const action = readKey(keymap, event, isBusy(event));
  if (!action) return;
  event.preventDefault();
  act(action);
});
document.addEventListener("keyup", (event) => {
  if (event.key?.toLowerCase() === "z" || event.code === "KeyZ") view.setZoom(false);
});
addEventListener("blur", () => view.setZoom(false));
addEventListener("online", () => {
  nextLeaseAt = 0;
  outbox.retry();
  refill();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") {
    outbox.flush();
    return;
  }
  outbox.retry(); // Perhaps somebody has signed in again in another tab.
  const before = queue.current();
  queue.dropExpired(Object.keys(queue.draft()).length === 0);
  if (queue.current() !== before) showCurrent();
  refill();
});
addEventListener("beforeunload", (event) => {
  const { waiting, kept } = outbox.snapshot();
  if (waiting && kept === "tab") event.preventDefault();
});
for (const button of document.querySelectorAll("[data-retry]")) button.addEventListener("click", lookAgainKeeping);

function lookAgainKeeping() {
  if (queue.current()) outbox.retry();
  else lookAgain();
}

setInterval(() => !queue.current() && document.visibilityState === "visible" && refill(), 15000);

await outbox.open();
outbox.flush();
settleAfterPaint();
