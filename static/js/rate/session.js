// One visit to a campaign, whatever the screen shows of it: the outbox, the leases, the figures, and the life of the page.
import { planAfterPaint } from "./after-paint.js";
import { whyNothing } from "./nothing.js";
import { backOff, createMemoryStore, createOutbox } from "./outbox.js";
import { createHeld } from "./held.js";
import { createHistory } from "./history.js";
import { createPace } from "./pace.js";
import { PATIENCE, isAway } from "./server.js";
import { createSiblings } from "./siblings.js";
import { createBrowserStore, createTabLock } from "./storage.js";
import { forgetOthers } from "./traces.js";

// How long a campaign that is closed to this person is left alone before it is asked for items again, in ms.
const ASK_AGAIN = 60000;
// After so many judgments the server is asked whether anything changed, however much is still in hand.
const LISTEN = 5;
const SOONEST_RENEWAL = 5000;
// For so long after a rater last did something their leases are renewed without them doing more, in ms.
const ATTENTION = 30 * 60000;

/**
 * show(): brings what the queue has onto the screen; called whenever that may have changed. isShown(): whether it is there, pictures and all.
 * wanted() -> the items whose pictures are to be decoded, the first ones first. showHistory(): after each judgment.
 * takeLease(answer): hears what a lease says beside its items. showAhead({isOffline, isFull}): told after each judgment and whenever that may have changed.
 * historyLimit: how many judgments can be undone after the page was opened anew.
 * dropExpired(): lets go of leases that have run out, save those on the screen; leaseOptions() -> what a request for items says beside the count.
 */
export function createSession({ config, queue, prefetch, server, view, show, isShown, wanted, showHistory, takeLease: hear = () => {}, showAhead = () => {}, dropExpired = queue.dropExpired, leaseOptions = () => ({}), historyLimit = 20, store = globalThis.indexedDB ? createBrowserStore() : createMemoryStore() }) {
  const user = String(config.user_id);
  const progress = { done: config.progress?.done ?? 0, total: config.progress?.total ?? 0, left: config.progress?.left_for_me ?? 0 };
  const pace = createPace();

  let leasing = false;
  let askAgain = false;
  let newsTimer; // What is new was asked for, and no answer came.
  let emptyTimer; // Nothing is in hand, and items are asked for again.
  let leaseFailures = 0;
  let lastStatus; // Of the last answer, if that was a refusal.
  let nextLeaseAt = 0; // Not asked before this, whatever for: the server was away, or refused.
  let nextItemsAt = 0; // Not asked for items before this; what is new is heard meanwhile.
  let renewAt = Infinity; // When half of the time is over for which the items are this person's.
  let renewsWithin = Infinity; // How far off that was when it was planned, in ms.
  let returned = false; // Whether the page was looked at again after long: what has run out meanwhile may leave the screen, too.
  let unheard = 0; // Judgments since the server was last asked.
  const counted = new Set(); // Judgments that are among what is done, and of which the server may not have decided yet.
  const refused = new Set(); // Judgments that the server did not take: what undoes one leaves nothing that stands.
  const reopened = new Set(); // What another tab took back, until the server knows of that too.
  const touched = new Set(); // What was judged or undone here since then: the answer may be from before or after that.
  let exhausted = false;
  let onlyPending = false; // The last lease held nothing but what is on its way to the server.
  let gone = false; // The campaign is closed, or no longer this person's; it is asked again now and then.
  let goneReason = null; // What the server said of that.
  let roleLost = false; // This account may rate nothing now.
  let toldRoleLost = false;
  let examplesUrl = null; // Where examples of the guidelines are answered that come before more items.
  let away = false; // The server did not answer when it was last asked.
  let heard = false; // It has, on this visit: what is in hand is from there.
  let tookUp = false; // What an earlier visit has left was looked for.
  let activeAt = Date.now(); // When the rater last did anything.

  const settleAfterPaint = planAfterPaint(settle);
  const history = createHistory({ user, store, campaign: config.campaign, limit: historyLimit });
  let unkept = []; // Records that the history does not have yet.
  const held = createHeld({ user, store, campaign: config.campaign });

  const outbox = createOutbox({
    user,
    campaign: config.campaign,
    store,
    send: (judgments) => server.sendJudgments(judgments),
    lock: createTabLock(`atelier-outbox-${user}`),
    onChange: () => settleAfterPaint(),
    onSettled(row, result) {
      const { judgment } = row;
      const isRefused = result.status === "rejected";
      if (judgment.action === "undo") {
        siblings.tellSettled(judgment, isRefused);
        if (reopened.has(judgment.assignment)) return hearSettled(judgment, isRefused); // This tab has sent what another took back.
      }
      if (!isRefused) {
        counted.delete(judgment.id);
        return;
      }
      // Where something else stands that this rater said of the item, on another device, the item is done all the same.
      if (judgment.action !== "undo" && !result.stands) {
        siblings.tellSettled(judgment, true);
        uncount(judgment.id);
      }
      queue.forget(judgment);
      history.remove(judgment);
      showHistory();
    },
  });

  // Tabs of one person are handed the same leases: what one has judged, the others need not show, and what one takes back, any may judge.
  const siblings = createSiblings({ user, campaign: config.campaign, onJudged: hearJudged, onUndone: hearUndone, onSettled: hearSettled, onResent: countOnce });

  function hearJudged({ id, assignment }) {
    touched.add(assignment);
    reopened.delete(assignment);
    counted.add(id);
    count(1);
    if (queue.dropElsewhere(assignment)) show();
    settleAfterPaint();
  }

  function hearUndone(record, item) {
    touched.add(record.assignment);
    counted.delete(record.supersedes);
    count(-1);
    const before = queue.current();
    reopened.add(record.assignment);
    // A page that waits for its first answer takes up all that is kept if none comes, this among it.
    const awaitsFirst = leasing && !heard && !tookUp;
    queue.reopenElsewhere(record, awaitsFirst ? null : item);
    history.remove({ id: record.supersedes });
    showHistory();
    if (queue.current() !== before) show();
    settleAfterPaint();
  }

  /** The server has heard of another tab's undo, or has refused what another tab delivered. */
  function hearSettled(record, isRefused) {
    if (record.action !== "undo") {
      if (!uncount(record.id)) return;
      queue.forget(record);
      history.remove(record);
      showHistory();
      settleAfterPaint();
      return;
    }
    if (!reopened.delete(record.assignment) || !isRefused || refused.has(record.supersedes)) return;
    count(1);
    queue.forget(record);
    if (queue.letGo(record.assignment)) show();
    settleAfterPaint();
  }

  /** On the key path: keeps a record and counts it. */
  function keep(record, about) {
    outbox.add(record, about);
    unkept.push(record);
    touched.add(record.assignment);
    returned = false; // Whoever goes on judges what is on the screen.
    // At once: another tab may be looked at in a moment.
    siblings.tell(record, queue.first(Infinity).find((item) => item.assignment === record.assignment));
    if (record.action === "undo") {
      counted.delete(record.supersedes);
      count(-1);
      return;
    }
    counted.add(record.id);
    count(1);
    unheard += 1;
    pace.note();
  }

  /** What is done once the server has it, be it on its way for the first time or again. */
  function countOnce({ id }) {
    refused.delete(id);
    if (counted.has(id)) return;
    counted.add(id);
    count(1);
    settleAfterPaint();
  }

  /** A judgment that the server refused is not done. Returns whether it was counted here. */
  function uncount(id) {
    refused.add(id);
    const was = counted.delete(id);
    if (was) count(-1);
    return was;
  }

  function count(step) {
    progress.done += step;
    progress.left = Math.max(0, progress.left - step);
  }

  // ---- what waits for the paint ----
  /** `words`: what was judged, for those who do not see it. */
  function settle(words) {
    const hasUndo = unkept.some((record) => record.action === "undo");
    keepHistory();
    // Before the first answer it is what earlier visits have left that counts. An undo starts a chain that only the rows here know of.
    if (heard || queue.current()) held.note(() => ({ items: queue.held(), progress: { ...progress } }), hasUndo);
    if (words !== undefined) {
      showHistory();
      view.announce(words);
    }
    view.showProgress({ ...progress, total: Math.max(progress.total, progress.done), pace: pace.read() });
    view.showOutbox(outbox.snapshot());
    tellRole();
    if (onlyPending && !outbox.snapshot().waiting) {
      onlyPending = false;
      nextItemsAt = 0;
    }
    prefetchAhead();
    tellAhead();
    refill();
  }

  function keepHistory() {
    const judged = unkept.length ? queue.history() : [];
    for (const record of unkept) {
      const entry = judged.find((one) => one.record === record);
      if (record.action === "undo") history.remove({ id: record.supersedes });
      else if (entry) history.add(entry);
    }
    unkept = [];
  }

  function tellAhead() {
    showAhead({ isOffline: away || !navigator.onLine || outbox.snapshot().problem === "offline", isFull: !leasing && !queue.needsMore() });
  }

  function prefetchAhead() {
    if (queue.current()) prefetch.want(wanted());
  }

  // ---- leases ----
  /** `anyway`: also where there is enough, to hear what another device of this rater has judged meanwhile. */
  async function refill(anyway = false) {
    heedClock();
    const isDue = Date.now() >= renewAt;
    const asksForItems = isDue || (queue.needsMore() && Date.now() >= nextItemsAt && !(exhausted && queue.length()));
    if (leasing) {
      askAgain ||= anyway; // What is on its way was asked before.
      return;
    }
    if (Date.now() < nextLeaseAt || !(anyway || asksForItems || unheard >= LISTEN)) {
      askWhileEmpty();
      return;
    }
    leasing = true;
    unheard = 0;
    touched.clear();
    clearTimeout(newsTimer);
    let answered = false;
    try {
      // The answer may be from before these arrive at the server, and come after: then it holds items that are judged.
      const unsent = outbox.pendingAssignments();
      const count = asksForItems ? queue.wanted(outbox.snapshot().waiting) : 1;
      const answer = await server.lease(count, { ...leaseOptions(), holding: listHeld() });
      if (!answer.ok) {
        if (isAway(answer.status)) await takeUpHeld();
        refuseLease(answer.status, answer.reason, answer);
      } else {
        answered = true;
        if (asksForItems) takeLease(answer, unsent, count);
        else takeNews(answer);
      }
    } catch {
      await takeUpHeld();
      refuseLease(0);
    } finally {
      leasing = false;
    }
    if (queue.current()) settleAfterPaint();
    else askWhileEmpty();
    const wantsNews = askAgain || (anyway && !answered);
    askAgain = false;
    if (wantsNews) newsTimer = setTimeout(() => refill(true), answered ? 0 : Math.max(0, nextLeaseAt - Date.now()) + 20);
  }

  /** Whoever has nothing in hand waits for the answer. */
  function askWhileEmpty() {
    if (queue.current()) return;
    clearTimeout(emptyTimer);
    const pause = Math.max(nextLeaseAt, nextItemsAt) - Date.now();
    emptyTimer = setTimeout(() => refill(), Math.max(0, pause) + 20);
  }

  /** A clock that was set back would have all that was planned wait for as long as that. */
  function heedClock() {
    const latest = Date.now() + ASK_AGAIN + 1000;
    if (nextLeaseAt > latest) nextLeaseAt = 0;
    if (nextItemsAt > latest) nextItemsAt = 0;
    if (renewAt - Date.now() > renewsWithin + 1000) renewAt = 0;
  }

  /** The server does not answer, and has not on this visit: the rater goes on with what an earlier one left in hand. */
  async function takeUpHeld() {
    if (heard || queue.length()) return;
    const kept = await held.read();
    tookUp = true;
    if (!kept) return;
    const ends = outbox.chainEnds();
    const judged = [...outbox.pendingAssignments(), ...queue.history().map(({ item }) => item.assignment)];
    queue.offer(kept.items.map((item) => ({ ...item, supersedes: ends.get(item.assignment) ?? item.supersedes })), new Set(judged));
    if (!queue.length()) return;
    Object.assign(progress, kept.progress);
    renewAt = 0; // As soon as there is somebody to ask.
    view.showReopened(true, kept.isLate);
    show();
  }

  /** What the server should have as held too; not where something is still to be sent, an undo for instance. */
  function listHeld() {
    const unsent = outbox.unsentAssignments();
    return queue.first(queue.length()).map((item) => item.assignment).filter((assignment) => !unsent.has(assignment) && !reopened.has(assignment)).slice(0, 1000);
  }

  /** Another device of this rater has judged these. */
  function letGo(assignments) {
    const held = new Set(queue.first(queue.length()).map((item) => item.assignment));
    const gone = assignments.filter((assignment) => held.has(assignment) && !touched.has(assignment));
    if (!gone.length) return;
    count(gone.length);
    if (gone.filter((assignment) => queue.letGo(assignment)).length) {
      view.announce("Judged on another device. Here is the next one.");
      show();
    }
  }

  function takeNews(answer) {
    leaseFailures = nextLeaseAt = 0;
    lastStatus = undefined;
    away = false;
    heard = true;
    view.showReopened(false);
    gone = false;
    if (roleLost) outbox.retry(); // It was given back.
    roleLost = false;
    tellRole();
    view.showGone(null);
    hear(answer);
    letGo(answer.gone ?? []);
  }

  function takeLease(answer, unsent, count) {
    takeNews(answer);
    const { waiting } = outbox.snapshot();
    const added = queue.offer(answer.items, new Set([...unsent, ...outbox.pendingAssignments()]));
    // What could not be renewed is others'. Before the answer nothing goes: without a connection there is no other.
    const before = queue.current();
    dropExpired(returned && Object.keys(queue.draft()).length === 0);
    returned = false;
    const ends = answer.items.map((item) => item.expiresAt).filter(Number.isFinite);
    renewsWithin = ends.length ? Math.max(SOONEST_RENEWAL, (Math.min(...ends) - Date.now()) / 2) : Infinity;
    renewAt = Date.now() + renewsWithin;
    queue.noteAnswer(answer.items.length >= count);
    exhausted = answer.items.length === 0 || (added === 0 && !queue.length() && !waiting && !unsent.size && !queue.aside());
    onlyPending = added === 0 && waiting > 0 && !exhausted && !queue.aside();
    // What was on its way has arrived meanwhile: the next answer knows of it.
    const arrived = !waiting && unsent.size > 0;
    nextItemsAt = added || arrived ? 0 : Date.now() + (exhausted ? ASK_AGAIN : queue.aside() ? 10000 : 3000);
    prefetchAhead();
    if (!isShown() || queue.current() !== before) show();
  }

  const isRoleLost = () => roleLost || outbox.snapshot().problem === "no-role";

  function tellRole() {
    const isNews = isRoleLost() !== toldRoleLost;
    toldRoleLost = isRoleLost();
    view.showRoleLost(toldRoleLost);
    if (isNews && !queue.current()) showNothing();
  }

  function refuseLease(status, reason, { isRoleLost: lost = false, examplesUrl: url = null } = {}) {
    examplesUrl = url;
    leaseFailures += 1;
    lastStatus = status;
    away = isAway(status);
    roleLost = lost;
    gone = lost || [404, 409, 410].includes(status);
    goneReason = gone && !lost ? reason : null;
    nextLeaseAt = Date.now() + (gone ? ASK_AGAIN : backOff(leaseFailures));
    // What is in hand may still be judged, and is taken in; but not unawares.
    view.showGone(goneReason);
    tellRole();
    exhausted = false;
    nextItemsAt = 0; // Whether there are any is not known.
    if (!queue.current()) showNothing(reason);
  }

  function showNothing(reason = goneReason) {
    const why = whyNothing({ isRoleLost: isRoleLost(), isGone: gone, reason, examplesUrl, status: lastStatus, failures: leaseFailures, aside: queue.aside(), isExhausted: exhausted }, lookAgain);
    if (why?.isOver) progress.left = 0;
    if (why) view.showMessage(why.state, why.title, why.text, why.actions);
    else view.showLoading(null);
  }

  function lookAgain() {
    nextLeaseAt = nextItemsAt = 0;
    lastStatus = undefined;
    gone = false;
    roleLost = false;
    queue.takeBackAside();
    exhausted = false;
    view.showLoading(null);
    outbox.retry();
    refill();
  }

  // ---- the life of the page ----
  function lookAgainKeeping() {
    if (!queue.current()) {
      lookAgain();
      return;
    }
    outbox.retry();
    if (roleLost) nextLeaseAt = 0;
    refill(true);
  }

  function wire() {
    addEventListener("online", () => {
      nextLeaseAt = nextItemsAt = 0;
      outbox.retry();
      refill(true);
      tellAhead();
    });
    addEventListener("offline", tellAhead);
    document.addEventListener("visibilitychange", () => {
      activeAt = Date.now();
      if (document.visibilityState === "hidden") {
        held.flush();
        outbox.flush();
        return;
      }
      outbox.retry(); // Perhaps somebody has signed in again in another tab.
      returned ||= Date.now() >= renewAt;
      refill(true);
    });
    addEventListener("beforeunload", (event) => {
      const { waiting, kept } = outbox.snapshot();
      if (waiting && kept === "tab") event.preventDefault();
    });
    for (const button of document.querySelectorAll("[data-retry]")) button.addEventListener("click", lookAgainKeeping);
    for (const type of ["keydown", "pointerdown", "pointermove", "wheel"]) addEventListener(type, () => (activeAt = Date.now()), { capture: true, passive: true });
    setInterval(() => {
      if (document.visibilityState !== "visible") return;
      // Whoever looks at one item for long has not left it.
      if (!queue.current() || (Date.now() >= renewAt && Date.now() - activeAt < ATTENTION)) refill();
    }, 15000);
  }

  return {
    keep,
    settleAfterPaint,
    prefetchAhead,
    tellAhead,
    refill,
    showNothing,
    isExhausted: () => exhausted,
    dismiss: (id) => outbox.dismiss(id),
    async resend(id) {
      const row = await outbox.resend(id);
      if (row?.campaign !== config.campaign || row.judgment.action === "undo") return;
      countOnce(row.judgment);
      siblings.tellResent(row.judgment);
    },
    /** Opens the page anew. Rejects, and nothing happens, where a row would be lost or the server does not answer. */
    async reload() {
      await outbox.settled();
      const { waiting, kept } = outbox.snapshot();
      if (waiting && kept === "tab") throw new Error("Rows that this browser does not keep are still to be sent.");
      const response = await fetch(location.href, { method: "HEAD", credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE) });
      if (!response.ok) throw new Error(`The page cannot be had: ${response.status}.`);
      location.reload();
      await new Promise(() => {}); // Whoever waits does so until the page is gone.
    },
    /** Reads what earlier visits left, sends it, and asks for items. */
    async start() {
      wire();
      await outbox.open();
      forgetOthers({ user, store }).catch(() => {}); // Without storage there is nothing of theirs.
      const before = await history.read();
      queue.restore(before);
      // The page's own figures are the server's, which does not have these yet.
      outbox.unsentJudgments().forEach(countOnce);
      if (before.length) showHistory();
      outbox.flush();
      settleAfterPaint();
    },
  };
}

/** Whether a text field or a dialog has the keyboard, or the key has done its work. */
export function isBusy(event) {
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return true;
  const target = event.target;
  if (!(target instanceof HTMLElement) || !(target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))) return false;
  // The field of a dialog that has just been closed has the focus until the next frame.
  return target.getClientRects().length > 0;
}
