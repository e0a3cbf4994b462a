// Wires the rating of many stickers at once. A mark is a change in memory; Enter makes a row of each sticker, puts them into the outbox and shows the
// next page, whose pictures are decoded by then. The rest waits for the paint.
import { createBriefing } from "./briefing.js";
import { SIZES, buildGridKeymap, howManyAhead, createGrid, readMarkers, repeats } from "./grid.js";
import { createGridView } from "./grid-view.js";
import { buildKeymap, readKey } from "./keymap.js";
import { readConfig } from "./dom.js";
import { createKeeper } from "./keeper.js";
import { createKeyStore } from "./keys.js";
import { decodePicture, fetchPicture, loadPicture } from "./pictures.js";
import { createPrefetch } from "./prefetch.js";
import { createQueue, picturesOf } from "./queue.js";
import { createServer } from "./server.js";
import { createSession, isBusy } from "./session.js";
import { createView } from "./view.js";

const config = readConfig();
// On a page a sticker passes or fails; why it fails is said where it is shown alone.
config.questions = config.questions.map((question) => ({ ...question, reasons: [], marks: "" }));
const keyStore = createKeyStore({ user: config.user_id, stored: config.keys, storage: () => localStorage });
const usual = buildKeymap({ ...config, keys: keyStore.get() });
const markers = readMarkers(config, usual);
const keymap = buildGridKeymap(markers, usual);
const HISTORY = 200; // Pages of judgments.
const queue = createQueue({ questions: config.questions, questionRevision: config.question_revision, revision: () => briefing.revision(), history: HISTORY, most: 100 });
const prefetch = createPrefetch({ load: loadPicture, fetch: fetchPicture, decode: decodePicture, onChange: tellAheadSoon });
const keeper = createKeeper({ config, page: location.href, pictures: () => picturesOf(queue, prefetch.isHere) });
const server = createServer({ config, readConfig, pageUrl: location.href });
const briefing = createBriefing({ config, server, after: showPage, reload: () => session.reload() });
const view = createView({ config, keymap, act, rows: nameKeys() });
const gridView = createGridView({ frame: view, markers, act });
const grid = createGrid({ queue, markers, ...readSettings() });

let shown = []; // The items that the screen has.
let ready = false; // Whether all their pictures are there too.
let brush = markers[0].question;
let asked = null; // The sticker of which a dialog asks why.
let telling = null;

const session = createSession({
  config,
  queue: { ...queue, dropElsewhere: (assignment) => (queue.dropElsewhere(assignment), grid.refresh()), letGo: (assignment) => (queue.letGo(assignment), grid.refresh()), restore: (entries) => (queue.restore(entries), grid.restore(entries)) },
  prefetch: { ...prefetch, want: wantPictures },
  server,
  view,
  show: showPage,
  isShown: () => ready,
  wanted: () => queue.first(Infinity),
  showHistory: () => view.showHistory(queue.history(), grid.size()),
  dropExpired(all) {
    const dropped = grid.dropExpired(all);
    if (grid.refresh()) showPage();
    return dropped;
  },
  historyLimit: HISTORY,
  showAhead({ isOffline, isFull }) {
    const held = queue.first(Infinity);
    const count = prefetch.countHere(held);
    view.showAhead({ count, isOffline, isReady: isFull && count === held.length });
    keeper.note();
  },
  takeLease: briefing.takeLease,
  leaseOptions: () => ({ together: grid.isTogether(), guideline_revision: briefing.revision(), question_revision: config.question_revision }),
});

/** This page and the next are decoded; of what comes after them the bytes are fetched, which a connection is not needed for any more. */
function wantPictures(items) {
  const soon = [...grid.items(), ...grid.next()];
  const isSoon = new Set(soon);
  prefetch.want([...soon, ...items.filter((item) => !isSoon.has(item))], soon.length);
}

/** Pictures come by the dozen. */
function tellAheadSoon() {
  telling ??= setTimeout(() => {
    telling = null;
    session.tellAhead();
  }, 100);
}

function nameKeys() {
  const keys = [["←→↑↓", "Go to another sticker"], [" ", markers.length > 1 ? "Mark it, or not, with what a press marks" : "Mark it as failing, or not"]];
  for (const { key, clearKey, text } of markers) {
    if (key) keys.push([key, markers.length > 1 ? `Mark it: no, ${text}` : "Mark it as failing, or not"]);
    if (clearKey) keys.push([clearKey, markers.length > 1 ? `Clear that mark: yes, ${text}` : "Clear its mark"]);
  }
  return [...keys, ["Enter", "Submit the page: what is not marked passes"]];
}

function readSettings() {
  const size = Number(view.remember("grid-size"));
  return { size: SIZES.includes(size) ? size : 24, together: Boolean(config.has_several) && view.remember("grid-together") !== "no" };
}

// ---- the page ----
function showPage() {
  if (!grid.fill()) {
    shown = [];
    ready = false;
    gridView.clear();
    showCounts();
    session.showNothing();
    return;
  }
  const items = grid.items();
  // A page that stays, if smaller, is judged to its end; the next one waits until what changed was read.
  if (!items.some((item) => shown.includes(item)) && briefing.holds()) {
    shown = [];
    ready = false;
    gridView.clear();
    view.showLoading(null);
    showCounts();
    return;
  }
  if (items.length !== shown.length || items.some((item, index) => item !== shown[index])) renderPage();
  awaitPictures();
}

function renderPage() {
  const before = shown.length && gridView.itemAt();
  const groups = grid.groups();
  shown = grid.items();
  ready = false;
  view.showLoading(null);
  gridView.render(groups, grid.isTogether());
  groups.flat().forEach((item, index) => gridView.showMark(index, grid.markOf(item.assignment)));
  gridView.focus(Math.max(0, groups.flat().indexOf(before)));
  wantPictures(queue.first(Infinity));
}

function awaitPictures() {
  gridView.place((item) => prefetch.pictures(item)?.[0]);
  const missing = shown.filter((item) => !prefetch.pictures(item));
  ready = !missing.length;
  // Enter says nothing of a page that was not painted yet; until then it is not called ready.
  if (ready) {
    const page = shown;
    requestAnimationFrame(() => {
      if (shown !== page) return;
      gridView.setReady();
      grid.markShown();
    });
  }
  showCounts();
  for (const item of missing) waitFor(item);
}

const waiting = new Set();

function waitFor(item) {
  if (waiting.has(item)) return;
  waiting.add(item);
  prefetch.ready(item).then(
    () => {
      waiting.delete(item);
      if (shown.includes(item)) showPage();
    },
    () => {
      waiting.delete(item);
      if (!shown.includes(item)) return;
      if (!navigator.onLine) {
        setTimeout(() => shown.includes(item) && waitFor(item), 3000);
        return;
      }
      queue.setAside(item.assignment);
      grid.refresh();
      view.announce("A picture could not be loaded. The sticker was put aside.");
      showPage();
      session.refill();
    },
  );
}

function showCounts() {
  gridView.showCounts({ marked: grid.countMarked(), total: shown.length, ready });
}

function showSettings() {
  const { deviceMemory, connection } = navigator;
  queue.setAhead(howManyAhead(grid.size(), { deviceMemory, saveData: connection?.saveData }));
  gridView.showSettings({ size: grid.size(), isTogether: grid.isTogether(), brush });
}

/** Pages of another shape; what is marked stays marked. */
function arrange(size, together) {
  grid.arrange(size, together);
  view.remember("grid-size", String(size));
  view.remember("grid-together", together ? "yes" : "no");
  showSettings();
  showPage();
  session.settleAfterPaint();
}

// ---- what a person does ----
function mark(index, change) {
  const item = gridView.itemAt(index);
  if (!ready || !item || !change(item.assignment)) return;
  gridView.showMark(index, grid.markOf(item.assignment));
  showCounts();
  view.announce(`${grid.countMarked()} of ${shown.length} marked`);
}

function submit() {
  if (!ready) return;
  const about = new Map(shown.map((item) => [item.assignment, item.prompt]));
  const marked = grid.countMarked();
  const rows = grid.submit();
  if (!rows.length) return;
  for (const row of rows) session.keep(row, about.get(row.assignment));
  showPage();
  session.settleAfterPaint(`Page submitted: ${rows.length - marked} pass, ${marked} marked. ${shown.length} on the next.`);
}

function undo(assignment) {
  const rows = assignment === undefined ? grid.undoPage() : [grid.undoOne(assignment)].filter(Boolean);
  if (!rows.length) {
    showPage();
    return;
  }
  for (const row of rows) session.keep(row, queue.first(Infinity).find((item) => item.assignment === row.assignment)?.prompt ?? "");
  showPage();
  gridView.focus(0);
  session.settleAfterPaint(`${rows.length === 1 ? "One sticker" : `${rows.length} stickers`} taken back. ${grid.countMarked()} of ${shown.length} marked.`);
}

function act(action) {
  const index = action.index ?? gridView.focused();
  switch (action.type) {
    case "move":
      gridView.move(action.direction);
      break;
    case "toggle":
      if (action.question) setBrush(action.question);
      mark(index, (assignment) => grid.toggle(assignment, action.question ?? brush, action.on));
      break;
    case "clear":
      mark(index, (assignment) => grid.toggle(assignment, action.question, false));
      break;
    case "brush":
      setBrush(action.question);
      break;
    case "submit":
      submit();
      break;
    case "skip":
      if (isOfAsked(action, index)) mark(index, (assignment) => grid.setAside(assignment, "skip", action.reason || null));
      break;
    case "skip_why":
      if (ready) askWhy("rate-skip");
      break;
    case "flag":
      if (!isOfAsked(action, index)) break;
      if (action.reason) mark(index, (assignment) => grid.setAside(assignment, "flag", action.reason));
      else if (ready) askWhy("rate-flag");
      break;
    case "undo":
      undo(action.assignment);
      break;
    case "size":
      arrange(action.size, grid.isTogether());
      break;
    case "together":
      arrange(grid.size(), action.on);
      break;
    case "view":
      location.assign(config.other_view_url);
      break;
    case "background":
      view.nextGround();
      break;
    case "zoom":
      gridView.fillZoom();
      view.setZoom(true);
      break;
    case "guidelines":
      view.toggleGuidelines();
      break;
    case "help":
      view.openDialog("rate-help");
      break;
    case "dismiss":
      session.dismiss(action.id);
      break;
    case "resend":
      session.resend(action.id);
      break;
  }
}

function askWhy(dialog) {
  asked = gridView.itemAt();
  view.openDialog(dialog);
}

/** As where one is shown alone: the sticker may have left while the dialog was open. */
function isOfAsked({ reason }, index) {
  const isSame = reason === undefined || gridView.itemAt(index)?.assignment === asked?.assignment;
  if (!isSame) view.announce("The sticker has left meanwhile. Nothing was said of another.");
  return isSame;
}

function setBrush(question) {
  if (brush === question) return;
  brush = question;
  showSettings();
}

// ---- keys ----
document.addEventListener("keydown", (event) => {
  // Space and Enter press whatever button has the focus, if it is none of the page's stickers.
  const elsewhere = /^( |Enter)$/.test(event.key) && event.target instanceof Element && event.target.closest("button:not(.tile), a, summary");
  const action = elsewhere ? null : readKey(keymap, { ...pick(event), repeat: event.repeat && !repeats(keymap.bindings.get(event.key)) }, isBusy(event));
  if (!action) return;
  event.preventDefault();
  act(action);
});
document.addEventListener("keyup", (event) => {
  if (readKey(keymap, event)?.type === "zoom") view.setZoom(false);
});
addEventListener("blur", () => view.setZoom(false));

function pick({ key, code, ctrlKey, metaKey, altKey, isComposing }) {
  return { key, code, ctrlKey, metaKey, altKey, isComposing };
}

showSettings();
await session.start();
