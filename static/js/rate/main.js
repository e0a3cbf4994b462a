// Wires the rater together. The key path: key -> record in memory -> outbox -> decoded picture swapped in -> paint. The rest waits for the paint.
import { createBriefing } from "./briefing.js";
import { asksInTurn, buildKeymap, pickOption, readKey } from "./keymap.js";
import { readConfig } from "./dom.js";
import { createKeeper } from "./keeper.js";
import { createKeyStore, withKey, withoutKeys } from "./keys.js";
import { decodePicture, fetchPicture, loadPicture } from "./pictures.js";
import { createPrefetch } from "./prefetch.js";
import { createQueue, howFarAhead, picturesOf } from "./queue.js";
import { createServer } from "./server.js";
import { createSession, isBusy } from "./session.js";
import { createView } from "./view.js";

const config = readConfig();
const AHEAD = config.kind === "sets" ? 2 : 10; // Of so many the pictures are decoded. Sets are many pictures each.
const queue = createQueue({ questions: config.questions, questionRevision: config.question_revision, revision: () => briefing.revision() });
const prefetch = createPrefetch({ load: loadPicture, fetch: fetchPicture, decode: decodePicture, onChange: tellAheadSoon });
const server = createServer({ config, readConfig, pageUrl: location.href });
const briefing = createBriefing({ config, server, after: showCurrent, reload: () => session.reload() });
const keyStore = createKeyStore({ user: config.user_id, stored: config.keys, storage: () => localStorage, send: (keys) => server.saveKeys(keys) });
const keeper = createKeeper({ config, page: location.href, pictures: () => picturesOf(queue, prefetch.isHere) });
const keymap = buildKeymap({ ...config, keys: keyStore.get() });
const view = createView({ config, keymap, act });

let ready = false; // Whether the current item's pictures are on the screen.
let shown = null; // The item that was put there last.
let isDeep = false; // Whether as much is asked for as is good for this campaign; the first items come the sooner for being few.
let telling = null;
let asked = null; // The item of which a dialog asks why.

const session = createSession({
  config,
  queue,
  server,
  view,
  show: showCurrent,
  isShown: () => ready,
  prefetch: { ...prefetch, want: (items) => prefetch.want(items, 1 + AHEAD) },
  wanted: () => queue.first(Infinity),
  showHistory: () => view.showHistory(queue.history()),
  takeLease(answer) {
    briefing.takeLease(answer);
    if (isDeep || !answer.items.length) return;
    isDeep = true;
    const { deviceMemory, connection } = navigator;
    queue.setAhead(...howFarAhead(Math.max(...answer.items.map((item) => item.images.length)), { deviceMemory, saveData: connection?.saveData }));
  },
  showAhead({ isOffline, isFull }) {
    const held = queue.first(Infinity);
    const count = prefetch.countHere(held);
    view.showAhead({ count, isOffline, isReady: isFull && count === held.length });
    keeper.note();
  },
  leaseOptions: () => ({ guideline_revision: briefing.revision(), question_revision: config.question_revision }),
});

/** Pictures come by the dozen. */
function tellAheadSoon() {
  telling ??= setTimeout(() => {
    telling = null;
    session.tellAhead();
  }, 100);
}

// ---- the key path ----
function commit(record, about) {
  session.keep(record, about);
  showCurrent();
  session.settleAfterPaint(`${record.action === "undo" ? "Undone" : view.describe(record)}. ${queue.current() ? queue.current().prompt : ""}`);
}

function showCurrent() {
  const item = queue.current();
  if (item && item !== shown && briefing.holds()) {
    // The item comes once what changed was read: no key that is pressed meanwhile is for it.
    ready = false;
    view.showLoading(null);
    return;
  }
  const pictures = item && prefetch.pictures(item);
  ready = Boolean(pictures);
  if (pictures) {
    shown = item;
    view.show(item, pictures, queue.draft(), queue.marks());
    requestAnimationFrame(() => queue.current() === item && queue.markShown());
  } else if (item) {
    awaitPictures(item);
  } else {
    session.showNothing();
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
      return showUnless(queue.answer(question, value));
    }
    case "submit": {
      const record = ready ? queue.submit() : null;
      if (!record) view.announce("Pick the best, or say that none is good.");
      return record;
    }
    case "answer-all":
      return ready ? showUnless(queue.answerAll(action.answers)) : null;
    case "reason":
      return ready ? showUnless(queue.toggleReason(action.question, action.reason)) : null;
    case "word":
      if (ready) queue.toggleWord(action.place);
      return showUnless(null);
    case "point":
      if (ready) queue.setPoint(action.point);
      return showUnless(null);
    case "skip":
      return canLeave() && isOfAsked(action) ? queue.skip(action.reason || null) : null;
    case "skip_why":
      if (canLeave()) askWhy("rate-skip");
      return null;
    case "flag":
      if (!canLeave() || !isOfAsked(action)) return null;
      if (action.reason) return queue.flag(action.reason);
      askWhy("rate-flag");
      return null;
    case "undo":
      if ((asksInTurn(config) || queue.asked()) && action.assignment === undefined && queue.clearDraft()) return showUnless(null);
      return queue.undo(action.assignment);
    case "background":
      view.nextGround();
      return null;
    case "size":
      view.nextSize();
      return null;
    case "edges":
      view.toggleEdges();
      return null;
    case "zoom":
      view.setZoom(true);
      return null;
    case "closer":
      if (ready) view.lookCloser();
      return null;
    case "view":
      location.assign(config.other_view_url);
      return null;
    case "guidelines":
      view.toggleGuidelines();
      return null;
    case "help":
      view.openDialog("rate-help");
      return null;
    case "rekey":
      chooseKeys(withKey(keyStore.get(), config.kind, action.row, action.key));
      return null;
    case "reset-keys":
      chooseKeys(withoutKeys(keyStore.get(), config.kind));
      return null;
    case "dismiss":
      session.dismiss(action.id);
      return null;
    case "resend":
      session.resend(action.id);
      return null;
    default:
      return null;
  }
}

/** An item may be passed over or reported also while its pictures do not come. */
function canLeave() {
  return ready || Boolean(queue.current() && !briefing.holds());
}

function askWhy(dialog) {
  asked = queue.current();
  view.openDialog(dialog);
}

/** What was chosen in a dialog is of the item that it was opened for: another may have come meanwhile, and nobody has looked at that. */
function isOfAsked({ reason }) {
  const isSame = reason === undefined || queue.current()?.assignment === asked?.assignment;
  if (!isSame) view.announce("The item has left meanwhile. Nothing was said of this one.");
  return isSame;
}

/** What an item has so far stays on the screen, unless it is finished. */
function showUnless(record) {
  if (!record) view.showSoFar(queue.draft(), queue.marks(), queue.asked());
  return record;
}

function awaitPictures(item) {
  view.showLoading(item);
  session.prefetchAhead();
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
      session.refill();
    },
  );
}

// ---- keys ----
async function chooseKeys(keys) {
  const saved = keyStore.set(keys);
  showKeys();
  view.sayKeys("Changed.");
  const refusal = await saved;
  if (refusal) showKeys();
  view.sayKeys(refusal ?? (keyStore.isUnsent() ? "Changed in this browser. It is saved with your account once the server can be reached." : "Changed and saved."));
}

function showKeys() {
  Object.assign(keymap, buildKeymap({ ...config, keys: keyStore.get() }));
  view.showKeys();
}

addEventListener("online", () => keyStore.flush().then((refusal) => refusal && showKeys()));
keyStore.flush();

document.addEventListener("keydown", (event) => {
  // Enter presses the button that has the focus, if it is none of the choices.
  if (!isBusy(event) && !event.ctrlKey && !event.metaKey && !event.altKey && view.pan(event.key)) {
    event.preventDefault(); // Also where an arrow answers: not of what is looked at closely.
    return;
  }
  const elsewhere = event.key === "Enter" && event.target instanceof Element && event.target.closest("button:not(.choice), a, summary");
  const action = elsewhere ? null : readKey(keymap, event, isBusy(event));
  if (!action) return;
  event.preventDefault();
  act(action);
});
document.addEventListener("keyup", (event) => {
  if (readKey(keymap, event)?.type === "zoom") view.setZoom(false);
});
addEventListener("blur", () => view.setZoom(false));

await session.start();
