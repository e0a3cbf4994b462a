// The rating screen as a person sees it: puts together its parts, each of which knows its own piece of the DOM.
import { describeAnswers } from "./answers.js";
import { announce, build, buildKey, find, remember, say, toggle } from "./dom.js";
import { COMMANDS } from "./keymap.js";
import { canSwipe, wireSwipes } from "./swipe.js";
import { createChoicesView, printKey } from "./view-choices.js";
import { createFootView } from "./view-foot.js";
import { createKeysView } from "./view-keys.js";
import { createMarksView } from "./view-marks.js";
import { createSetsView } from "./view-sets.js";
import { createStageView } from "./view-stage.js";
import { createStickerView } from "./view-sticker.js";
import { createStripView } from "./view-strip.js";

const GROUNDS = ["checker", "white", "black", "chat"];
const GROUND_NAMES = { checker: "checkerboard", white: "white", black: "black", chat: "a chat" };

/**
 * act(action) gets what a person wants, in the words of keymap.js. A screen that brings its own choices names their keys in `rows`, [[key, label]],
 * and gets everything around them.
 */
export function createView({ config, keymap, act, rows = null }) {
  const root = find("rate");
  const stage = find("rate-stage");
  const picks = config.questions.find((question) => question.multiple);
  const swipes = !rows && canSwipe(config);
  const setsView = config.kind === "sets" ? createSetsView() : null;
  const stageView = createStageView({ stage, picks, setsView, act, isGrid: Boolean(rows) });
  const stickerView = createStickerView({ stage, remember, announce, ...(picks && { usual: 0 }) });
  const marksView = createMarksView({ config, act, buildKey, keys: () => keymap.reasonKeys });
  const keysView = createKeysView({ config, keymap, act, buildKey });
  const stripView = createStripView({ root, questions: config.questions, isOfSets: Boolean(setsView), act });
  const footView = createFootView({ root, questions: config.questions, act });
  // Under a finger each choice lies where a swipe towards it goes.
  const choicesView = createChoicesView({ config, keymap, act, mirrored: swipes && matchMedia("(pointer: coarse)").matches });

  // ---- what is there from the start ----
  /** After a rater has chosen another key: every button says it. */
  function showKeys() {
    choicesView.showKeys();
    for (const button of root.querySelectorAll("[data-command]")) printCommand(button);
    marksView.showKeys();
    keysView.show();
  }

  /** The keys of a screen that brings its own choices; they are changed where one sticker is rated at a time. */
  function listKeys() {
    const commands = COMMANDS.filter(({ name }) => keymap.commandKeys.has(name)).map(({ name, label }) => [keymap.commandKeys.get(name), label]);
    find("rate-keys").replaceChildren(...[...rows, ...commands].map(([key, label]) => {
      const line = build("div", "keys__row");
      const term = build("dt", "keys__fixed");
      term.append(buildKey(key));
      line.append(term, build("dd", "", label));
      return line;
    }));
    find("rate-keys-lead").hidden = true;
    find("rate-keys-reset").hidden = true;
  }

  function printCommand(button) {
    const key = keymap.commandKeys.get(button.dataset.command);
    if (!button.classList.contains("btn--icon")) printKey(button, key);
    else if (key) button.setAttribute("aria-keyshortcuts", key);
  }

  function wireCommands() {
    for (const button of root.querySelectorAll("[data-command]")) {
      printCommand(button);
      if (button.dataset.command === "zoom") button.addEventListener("click", () => stageView.setZoom(!stageView.isZoomed()));
      else button.addEventListener("click", () => act({ type: button.dataset.command }));
    }
    find("rate-guide").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      toggleGuidelines();
    });
    for (const type of ["flag", "skip"]) wireReason(type);
  }

  /** A dialog in which a reason is chosen, said in one's own words, or both. */
  function wireReason(type) {
    const dialog = find(`rate-${type}`);
    const words = dialog.querySelector("input");
    dialog.addEventListener("submit", (event) => {
      // At once: the browser's own closing says so in a later task, and the next key may come before that and would be for the item that is left.
      event.preventDefault();
      const reason = [event.submitter.value === "words" ? "" : event.submitter.value, words.value.trim()].filter(Boolean).join(": ");
      dialog.close();
      act({ type, reason });
    });
    dialog.addEventListener("keydown", (event) => {
      // In the words a digit is a digit, and Enter sends them.
      const pressed = event.target === words ? event.key === "Enter" && !event.isComposing && '[value="words"]' : `[data-digit="${CSS.escape(event.key)}"]`;
      const option = pressed && dialog.querySelector(pressed);
      if (!option) return;
      // It closes the dialog: what lies behind must not take the same key for its own.
      event.preventDefault();
      event.stopPropagation();
      option.click();
    });
  }

  function wireFingers() {
    root.dataset.swipes = "";
    wireSwipes({ stage, isZoomed: stageView.isZoomed, answer: (said) => choicesView.find(said)?.click() });
    for (const said of ["pass", "fail"]) say(`rate-swipe-${said}`, choicesView.find(said)?.querySelector(".choice__label").textContent ?? "");
  }

  // ---- the work ----
  function setState(state) {
    root.dataset.state = state;
    choicesView.setEnabled(state === "ready");
  }

  function setPressed(draft) {
    choicesView.setPressed(draft);
    stageView.setPicked(draft);
  }

  function showSoFar(draft, marks, asked) {
    setPressed(draft);
    marksView.setMarks(marks, asked);
    if (asked) announce("Why does it fail? Press the digit of a reason.");
  }

  function show(item, pictures, draft, marks) {
    stageView.show(item, pictures);
    if (picks) choicesView.showCandidates(picks.name, pictures.length);
    stickerView.clear();
    marksView.showPrompt(item);
    say("rate-bucket", item.bucket ?? "");
    setPressed(draft);
    marksView.setMarks(marks);
    setState("ready");
  }

  let told = ""; // What the message says, and by which buttons.
  let runs = [];
  let wasPressed = false; // Whoever pressed a button hears what came of it.

  /** The same again leaves all as it is: a button that is being pressed stays the one that is let go. */
  function showMessage(state, title, text, actions = []) {
    runs = actions.map(({ run }) => run);
    const tells = JSON.stringify([state, title, text, actions.map(({ label, href, primary }) => [label, href, primary])]);
    if (tells === told && root.dataset.state === state) {
      if (wasPressed) announce(`${title}. ${text}`);
      wasPressed = false;
      return;
    }
    told = tells;
    wasPressed = false;
    const box = find("rate-message");
    const heading = build("h2", "", title);
    box.replaceChildren(heading, build("p", "", text));
    const row = build("div", "cluster");
    for (const [place, { label, href, primary }] of actions.entries()) {
      const button = build(href ? "a" : "button", `btn${primary ? " btn--primary" : ""}`, label);
      if (href) button.href = href;
      else
        button.addEventListener("click", () => {
          wasPressed = true;
          runs[place]();
        });
      row.append(button);
    }
    box.append(row);
    stageView.clear();
    stickerView.clear();
    marksView.showPrompt(null);
    say("rate-bucket", "");
    const focused = document.activeElement;
    setState(state);
    // What had the focus is no longer there to be seen.
    if (focused === document.body || ["rate-choices", "rate-reasons", "rate-prompt", "sheet-bar"].some((id) => find(id)?.contains(focused))) {
      heading.tabIndex = -1;
      heading.focus();
    }
    announce(`${title}. ${text}`);
    const first = actions.findIndex((action) => action.focus);
    if (first >= 0) row.children[first].focus();
  }

  function showLoading(item) {
    stageView.clear();
    stickerView.clear();
    marksView.showPrompt(item);
    say("rate-bucket", item?.bucket ?? "");
    setPressed({});
    marksView.setMarks({ reasons: new Map(), words: [], point: null });
    setState("loading");
  }

  // ---- around it ----
  /** Why nothing more comes, while what is in hand can still be judged; null once it comes again. */
  function showGone(reason) {
    say("rate-gone-words", reason ?? "");
    toggle("rate-gone", Boolean(reason));
  }

  /** That the page was opened without a connection, and shows what was still in hand, some of it after its time. */
  function showReopened(on, isLate = false) {
    toggle("rate-reopened", on);
    toggle("rate-reopened-late", isLate);
  }

  /** That this account may not rate any more, with what can be done about it. */
  function showRoleLost(lost) {
    toggle("rate-role-lost", lost);
  }

  function setGround(ground) {
    root.dataset.ground = ground;
    say("rate-ground-name", GROUND_NAMES[ground]);
  }

  function nextGround() {
    const ground = GROUNDS[(GROUNDS.indexOf(root.dataset.ground) + 1) % GROUNDS.length];
    setGround(ground);
    remember("ground", ground);
    announce(`Background: ${GROUND_NAMES[ground]}`);
  }

  function toggleGuidelines() {
    const guide = find("rate-guide");
    const open = getComputedStyle(guide).display === "none";
    const inside = guide.contains(document.activeElement);
    root.dataset.guide = open ? "open" : "closed";
    if (!open && inside) root.querySelector('.rate__tools [data-command="guidelines"]').focus({ preventScroll: true });
    // Only where they stand beside the work: on a narrow screen guidelines that open by themselves would lie over it.
    if (matchMedia("(min-width: 64rem)").matches) remember("guide", open ? "auto" : "closed");
    if (open) guide.focus({ preventScroll: true });
  }

  function openDialog(id) {
    const dialog = find(id);
    if (dialog.open) return;
    for (const words of dialog.querySelectorAll("input[type=text]")) words.value = "";
    dialog.showModal();
  }

  if (rows) listKeys();
  else {
    choicesView.buildAll();
    keysView.show();
  }
  wireCommands();
  if (swipes) wireFingers();
  setGround(GROUNDS.includes(remember("ground")) ? remember("ground") : "checker");
  root.dataset.guide = remember("guide") === "closed" ? "closed" : "auto";
  stripView.show([]);
  setPressed({});
  setState("loading");

  return {
    show, showLoading, showMessage, showSoFar, setPressed, showKeys, showGone, showReopened, showRoleLost, nextGround, toggleGuidelines, openDialog, announce, remember,
    showHistory: stripView.show,
    showProgress: footView.showProgress,
    showOutbox: footView.showOutbox,
    showAhead: footView.showAhead,
    nextSize: stickerView.nextSize,
    toggleEdges: stickerView.toggleEdges,
    setZoom: stageView.setZoom,
    pan: stageView.pan,
    sayKeys: keysView.say,
    lookCloser: () => setsView?.open(),
    describe: (record) => describeAnswers(record, config.questions),
  };
}
