// The only module of the rater that knows the DOM.
import { COMMANDS, asksInTurn, nameKey } from "./keymap.js";
import { createKeysView } from "./view-keys.js";
import { readPicks } from "./pick.js";
import { createMarksView } from "./view-marks.js";
import { createSetsView } from "./view-sets.js";
import { canSwipe, wireSwipes } from "./swipe.js";
import { createStickerView } from "./view-sticker.js";

const GROUNDS = ["checker", "white", "black", "chat"];
const GROUND_NAMES = { checker: "checkerboard", white: "white", black: "black", chat: "a chat" };

export const find = (id) => document.getElementById(id);

export function build(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function buildKey(key) {
  return build("kbd", "", nameKey(key));
}

export function readConfig(html) {
  const source = html === undefined ? document : new DOMParser().parseFromString(html, "text/html");
  const script = source.getElementById("rate-config");
  if (script) return JSON.parse(script.textContent);
  // A page that says why there is nothing to judge still says who is signed in.
  const place = source.getElementById("unsent");
  return place && { user_id: place.dataset.user, csrf: JSON.parse(source.body.getAttribute("hx-headers"))["X-CSRFToken"] };
}

// A picture that neither comes nor fails would hold up its item.
const PATIENCE = 20000;

function createPicture(url, priority) {
  const picture = new Image();
  picture.decoding = "sync"; // It is decoded by then; the swap must not wait for another turn.
  picture.fetchPriority = priority;
  picture.draggable = false;
  picture.alt = "";
  picture.src = url;
  return picture;
}

/** The picture, once `done` is; one that fails or takes too long is given up. */
async function inTime(picture, done) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`No answer within ${PATIENCE} ms.`)), PATIENCE);
  });
  try {
    await Promise.race([done, late]);
  } catch (error) {
    picture.src = ""; // What is under way is given up.
    throw error;
  } finally {
    clearTimeout(timer);
  }
  return picture;
}

/** Loads and decodes one picture: what `prefetch` calls, as the two after it. */
export function loadPicture(url) {
  const picture = createPicture(url, "high");
  return inTime(picture, picture.decode());
}

/** One that is not next: its bytes are held, which a decoded picture's size is many times of. */
export function fetchPicture(url) {
  const picture = createPicture(url, "low");
  return inTime(picture, new Promise((done, fail) => {
    picture.onload = done;
    picture.onerror = () => fail(new Error("The picture could not be fetched."));
  }));
}

export function decodePicture(picture) {
  return inTime(picture, picture.decode());
}

function toneOf(choice, question) {
  if (choice.accepts === true) return "pass";
  return question.choices.some((other) => other.accepts === true) ? "fail" : "even";
}

function describeAnswers(record, questions) {
  if (record.action === "skip") return record.reason ? `skipped (${record.reason})` : "skipped";
  if (record.action === "flag") return record.reason ? `reported (${record.reason})` : "reported";
  return questions
    .filter((question) => question.name in record.answers)
    .map((question) => {
      const label = question.choices.find((choice) => choice.value === record.answers[question.name])?.label ?? record.answers[question.name];
      const reasons = record.details?.[question.name]?.reasons;
      return reasons ? `${label} (${reasons.join(", ").toLowerCase()})` : label;
    })
    .join(", ");
}

/**
 * act(action) gets what a person wants, in the words of keymap.js. A screen that brings its own choices names their keys in `rows`, [[key, label]],
 * and gets everything around them.
 */
export function createView({ config, keymap, act, rows = null }) {
  const root = find("rate");
  const stage = find("rate-stage");
  const choices = find("rate-choices");
  const buttons = []; // {button, question, value}
  const entries = new WeakMap(); // Of the strip, by record.
  const inTurn = asksInTurn(config);
  const picks = config.questions.find((question) => question.multiple);
  const marksView = createMarksView({ config, act, buildKey, keys: () => keymap.reasonKeys });
  const keysView = createKeysView({ config, keymap, act, buildKey });
  const stickerView = createStickerView({ stage, remember, announce, ...(picks && { usual: 0 }) });
  const setsView = config.kind === "sets" ? createSetsView() : null;
  const swipes = !rows && canSwipe(config);
  // Under a finger each choice lies where a swipe towards it goes.
  const mirrored = swipes && matchMedia("(pointer: coarse)").matches;
  let scale = 1;

  // ---- what is there from the start ----
  function buildChoice(question, choice) {
    const button = build("button", `choice choice--${toneOf(choice, question)}`);
    button.type = "button";
    button.append(build("span", "choice__label", choice.label));
    button.dataset.value = choice.value;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => act({ type: "answer", question: question.name, value: choice.value }));
    buttons.push({ button, question: question.name, value: choice.value });
    printKey(button, keymap.choiceKeys.get(`${question.name}\0${choice.value}`), choice.label);
    return button;
  }

  /** What a button is pressed by, on the button. A candidate named by its digit says it once. */
  function printKey(button, key, label) {
    button.querySelector("kbd")?.remove();
    if (key) button.setAttribute("aria-keyshortcuts", key);
    else button.removeAttribute("aria-keyshortcuts");
    if (!key || nameKey(key) === label) return;
    if (label === undefined) button.append(buildKey(key));
    else button.prepend(buildKey(key));
  }

  function buildQuestions() {
    const order = ["left", "tie", "both_bad", "right"];
    config.questions.forEach((question, index) => {
      const row = build("fieldset", "question");
      row.append(build("legend", "question__text", inTurn ? `${index + 1} of ${config.questions.length}: ${question.text}` : question.text));
      if (question.help) row.append(build("p", "question__help", question.help));
      const box = build("div", "question__choices");
      const made = question.choices.map((choice) => buildChoice(question, choice));
      if (made.every((button) => order.includes(button.dataset.value))) made.sort((a, b) => order.indexOf(a.dataset.value) - order.indexOf(b.dataset.value));
      if (mirrored) made.reverse();
      box.append(...made);
      row.append(box);
      choices.append(row);
    });
    if (config.questions.some((question) => question.multiple)) {
      const done = build("button", "choice choice--done");
      done.type = "button";
      done.append(build("kbd", "", "⏎"), build("span", "choice__label", "Take these"));
      done.addEventListener("click", () => act({ type: "submit" }));
      choices.append(done);
    }
    choices.dataset.questions = inTurn ? 1 : config.questions.length;
    if (keymap.passAll) {
      const all = build("button", "choice choice--pass choice--all");
      all.type = "button";
      all.append(build("span", "choice__label", "Pass all"));
      printKey(all, keymap.passAll, "Pass all");
      all.addEventListener("click", () => act(keymap.bindings.get(keymap.passAll)));
      choices.append(all);
      buttons.push({ button: all });
    }
  }

  /** After a rater has chosen another key: every button says it. */
  function showKeys() {
    for (const { button, question, value } of buttons) {
      if (question === undefined) printKey(button, keymap.passAll, "Pass all");
      else printKey(button, keymap.choiceKeys.get(`${question}\0${value}`), button.querySelector(".choice__label").textContent);
    }
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
      if (button.dataset.command === "zoom") button.addEventListener("click", () => setZoom(!stage.hasAttribute("data-zoom")));
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
    dialog.addEventListener("close", () => {
      const chosen = dialog.returnValue;
      const reason = [chosen === "words" ? "" : chosen, words.value.trim()].filter(Boolean).join(": ");
      dialog.returnValue = "";
      words.value = "";
      if (chosen) act({ type, reason });
    });
    dialog.addEventListener("keydown", (event) => {
      // In the words a digit is a digit, and Enter sends them.
      const pressed = event.target === words ? event.key === "Enter" && !event.isComposing && '[value="words"]' : `[data-digit="${CSS.escape(event.key)}"]`;
      const option = pressed && dialog.querySelector(pressed);
      if (!option) return;
      event.preventDefault();
      option.click();
    });
  }

  // ---- the stage ----
  function measure() {
    // Read once a resize, never on the key path.
    const single = stage.dataset.count === "1" || !stage.dataset.count;
    const gap = 8;
    const count = Number(stage.dataset.count || 1);
    const columns = single ? 1 : stage.clientWidth < 560 && count > 2 ? (count > 4 ? 3 : 2) : count > 5 ? Math.ceil(count / 2) : count;
    const rows = Math.ceil(count / columns);
    stage.dataset.columns = columns;
    scale = Math.max(48, Math.min((stage.clientWidth - gap * (columns - 1)) / columns, (stage.clientHeight - gap * (rows - 1)) / rows) - 16);
  }

  /** As large as it stays crisp: small pictures grow by whole steps, large ones fill the stage. */
  function sizeOf(picture) {
    const natural = Math.max(picture.naturalWidth, picture.naturalHeight, 1);
    const largest = natural <= 128 ? natural * 6 : natural * 2;
    return Math.round(Math.min(scale, largest));
  }

  function fit(picture) {
    const size = sizeOf(picture);
    const ratio = picture.naturalWidth / Math.max(1, picture.naturalHeight);
    picture.width = ratio >= 1 ? size : Math.round(size * ratio);
    picture.height = ratio >= 1 ? Math.round(size / ratio) : size;
  }

  function setPressed(draft) {
    if (inTurn) {
      const open = config.questions.findIndex((question) => !(question.name in draft));
      [...choices.querySelectorAll(".question")].forEach((row, index) => row.toggleAttribute("hidden", index !== Math.max(0, open)));
    }
    for (const { button, question, value } of buttons) button.setAttribute("aria-pressed", String(question !== undefined && readPicks(draft[question]).includes(value)));
    for (const frame of stage.querySelectorAll("[data-value]")) frame.toggleAttribute("data-picked", readPicks(draft[picks.name]).includes(frame.dataset.value));
  }

  function setState(state) {
    root.dataset.state = state;
    for (const { button } of buttons) button.setAttribute("aria-disabled", String(state !== "ready"));
  }

  function showSoFar(draft, marks, asked) {
    setPressed(draft);
    marksView.setMarks(marks, asked);
    if (asked) announce("Why does it fail? Press the digit of a reason.");
  }

  function show(item, pictures, draft, marks) {
    const count = String(pictures.length);
    if (stage.dataset.count !== count) {
      stage.dataset.count = count;
      measure();
    }
    for (const picture of pictures) fit(picture);
    // Two versions may draw the very same picture, which is loaded once and cannot stand in two places.
    const placed = pictures.map((picture, index) => (pictures.indexOf(picture) < index ? picture.cloneNode() : picture));
    stage.replaceChildren(...(setsView ? setsView.build(item, placed) : placed.map((picture, index) => {
      const frame = build("div", "rate__frame");
      picture.alt = pictures.length > 1 ? `Sticker ${index + 1}` : "The sticker";
      frame.append(picture);
      if (picks) {
        frame.dataset.value = String(index + 1);
        frame.addEventListener("click", () => act({ type: "answer", question: picks.name, value: frame.dataset.value }));
      }
      if (picks || pictures.length > 2) frame.append(build("span", "rate__number", String(index + 1)));
      return frame;
    })));
    for (const { button, question, value } of buttons) if (picks?.name === question) button.hidden = Number(value) > pictures.length;
    stickerView.clear();
    marksView.showPrompt(item);
    find("rate-bucket").textContent = item.bucket ?? "";
    setPressed(draft);
    marksView.setMarks(marks);
    setState("ready");
  }

  function showMessage(state, title, text, actions = []) {
    const box = find("rate-message");
    const heading = build("h2", "", title);
    box.replaceChildren(heading, build("p", "", text));
    const row = build("div", "cluster");
    for (const { label, href, run, primary } of actions) {
      const button = build(href ? "a" : "button", `btn${primary ? " btn--primary" : ""}`, label);
      if (href) button.href = href;
      else button.addEventListener("click", run);
      row.append(button);
    }
    box.append(row);
    stage.replaceChildren();
    stickerView.clear();
    marksView.showPrompt(null);
    find("rate-bucket").textContent = "";
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
    stage.replaceChildren();
    stickerView.clear();
    marksView.showPrompt(item);
    find("rate-bucket").textContent = item?.bucket ?? "";
    setPressed({});
    marksView.setMarks({ reasons: new Map(), words: [], point: null });
    setState("loading");
  }

  // ---- around it ----
  function buildEntry({ item, record }) {
    const said = describeAnswers(record, config.questions);
    const entry = build("li");
    const button = build("button", "strip__item");
    button.type = "button";
    button.title = `${item.prompt}: ${said}. Press to undo.`;
    button.setAttribute("aria-label", `Undo: ${item.prompt}, ${said}`);
    // Of two sets the first of each.
    for (const image of setsView ? [item.images[0], item.images[item.images.length / 2]] : item.images.slice(0, 2)) {
      const small = new Image(40, 40);
      small.src = image.url;
      small.alt = "";
      // What was judged long ago has no picture any more, but can be undone.
      small.addEventListener("error", () => small.remove());
      button.append(small);
    }
    button.append(build("span", `strip__mark strip__mark--${markOf(record)}`, { pass: "✓", fail: "✗", skip: "–", even: "•" }[markOf(record)]));
    button.addEventListener("click", () => act({ type: "undo", assignment: item.assignment }));
    entry.append(button);
    return entry;
  }

  function showHistory(history, count = 20) {
    const strip = find("rate-strip");
    const focused = [...strip.children].findIndex((entry) => entry.contains(document.activeElement));
    // What is there already stays as it is: to lay all of it out anew takes longer than everything else after a key.
    const wanted = history.slice(0, count).map((judged) => {
      if (!entries.has(judged.record)) entries.set(judged.record, buildEntry(judged));
      return entries.get(judged.record);
    });
    for (const entry of [...strip.children]) if (!wanted.includes(entry)) entry.remove();
    wanted.forEach((entry, place) => {
      if (strip.children[place] !== entry) strip.insertBefore(entry, strip.children[place] ?? null);
    });
    // Whoever undid by the strip goes on in it, or at the work where nothing is left in it.
    if (focused >= 0 && !strip.contains(document.activeElement)) (strip.children[Math.min(focused, strip.children.length - 1)]?.firstElementChild ?? find("main")).focus();
    // A button that is disabled would lose the focus of whoever has just pressed it.
    for (const button of root.querySelectorAll('[data-command="undo"]')) button.setAttribute("aria-disabled", String(history.length === 0));
  }

  function markOf(record) {
    if (record.action !== "answer") return "skip";
    const judged = config.questions.filter((question) => question.name in record.answers && question.choices.some((choice) => choice.accepts === true));
    if (!judged.length) return "even";
    return judged.every((question) => question.choices.find((choice) => choice.value === readPicks(record.answers[question.name])[0])?.accepts) ? "pass" : "fail";
  }

  function showProgress({ done, total, left, pace }) {
    const bar = find("rate-progress");
    bar.max = Math.max(1, total);
    bar.value = Math.min(done, total);
    const figures = `${done} of ${total}`;
    find("rate-figures").textContent = left > 0 ? `${figures}, ${left} left for you` : figures;
    const minutes = pace > 0 ? Math.ceil(left / pace) : 0;
    find("rate-pace").textContent = pace > 0 ? `${pace} a minute${left > 0 ? `, about ${minutes} min left` : ""}` : "";
  }

  function showOutbox({ waiting, rejected, problem, kept }) {
    const cloud = find("rate-cloud");
    const words = waiting === 0 ? (rejected.length ? `${rejected.length} not accepted` : "all saved") : problem === "offline" ? `${waiting} waiting, offline` : problem === "signed-out" ? `${waiting} waiting, signed out` : problem === "no-role" ? `${waiting} waiting, no role` : `${waiting} waiting`;
    if (cloud.textContent !== words) cloud.textContent = words;
    find("rate-cloud-box").dataset.state = waiting === 0 && !rejected.length ? "saved" : problem || !waiting ? "stuck" : "waiting";
    toggle("rate-signed-out", problem === "signed-out");
    toggle("rate-loose", kept === "tab" && waiting > 0);
    toggle("rate-rejected", rejected.length > 0);
    find("rate-rejected-count").textContent = rejected.length === 1 ? "One judgment was not accepted." : `${rejected.length} judgments were not accepted.`;
    if (find("rate-rejected-dialog").open || rejected.length) listRejected(rejected);
  }

  /** How much can be judged without a connection; said where there is none. */
  function showAhead({ count, isOffline, isReady }) {
    root.dataset.ahead = isReady ? "ready" : "coming";
    root.dataset.aheadCount = count;
    if (isOffline && find("rate-ahead-count").textContent !== String(count)) find("rate-ahead-count").textContent = count;
    // It has the place of the pace, so that nothing moves when a connection comes and goes.
    toggle("rate-ahead", isOffline);
    toggle("rate-pace", !isOffline);
  }

  function listRejected(rejected) {
    find("rate-rejected-list").replaceChildren(...rejected.map((row) => {
      const entry = build("li");
      entry.dataset.tone = "bad";
      const said = row.judgment.action === "undo" ? "Undo" : describeAnswers(row.judgment, config.questions);
      entry.append(build("strong", "", row.about ? `${row.about}: ${said}` : said), build("span", "", row.reason), build("time", "", new Date(row.judgment.decided_at).toLocaleTimeString()));
      const button = build("button", "btn btn--sm", "I have read it");
      button.addEventListener("click", () => act({ type: "dismiss", id: row.id }));
      const again = build("button", "btn btn--sm", "Send it again");
      again.addEventListener("click", () => act({ type: "resend", id: row.id }));
      const both = build("div", "btn-row");
      both.append(again, button);
      entry.append(both);
      return entry;
    }));
    if (!rejected.length) find("rate-rejected-dialog").close();
  }

  /** Why nothing more comes, while what is in hand can still be judged; null once it comes again. */
  function showGone(reason) {
    find("rate-gone-words").textContent = reason ?? "";
    toggle("rate-gone", Boolean(reason));
  }

  /** That the page was opened without a connection, and shows what was still in hand. */
  function showReopened(on) {
    toggle("rate-reopened", on);
  }

  /** That this account may not rate any more, with what can be done about it. */
  function showRoleLost(lost) {
    toggle("rate-role-lost", lost);
  }

  function toggle(id, on) {
    const element = find(id);
    if (element.hidden === on) element.hidden = !on;
  }

  function announce(text) {
    find("rate-live").textContent = text;
  }

  // ---- backgrounds, zoom, guidelines ----
  function remember(name, value) {
    try {
      if (value === undefined) return localStorage.getItem(`atelier-rate-${name}`);
      localStorage.setItem(`atelier-rate-${name}`, value);
    } catch {
      // Forbidden storage costs no more than the memory of a preference.
    }
    return null;
  }

  function setGround(ground) {
    root.dataset.ground = ground;
    find("rate-ground-name").textContent = GROUND_NAMES[ground];
  }

  function nextGround() {
    const ground = GROUNDS[(GROUNDS.indexOf(root.dataset.ground) + 1) % GROUNDS.length];
    setGround(ground);
    remember("ground", ground);
    announce(`Background: ${GROUND_NAMES[ground]}`);
  }

  function setZoom(on) {
    if (stage.hasAttribute("data-zoom") === on) return;
    stage.toggleAttribute("data-zoom", on);
    if (!rows) announce(on ? "Zoomed. The arrow keys move the picture." : "No longer zoomed.");
  }

  /** Where the glass is, in percent of the picture, moved by an arrow. Returns whether it is there to be moved. */
  function pan(key) {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key] ?? [0, 0];
    if (rows || !stage.hasAttribute("data-zoom") || !(x || y)) return false;
    for (const [name, step] of [["--x", x], ["--y", y]]) {
      const at = parseFloat(stage.style.getPropertyValue(name)) || (stage.style.getPropertyValue(name) ? 0 : 50);
      stage.style.setProperty(name, `${Math.max(0, Math.min(100, at + 10 * step))}%`);
    }
    return true;
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
    if (!dialog.open) dialog.showModal();
  }

  // ---- pointers ----
  function wirePointers() {
    stage.addEventListener("pointermove", (event) => {
      if (!stage.hasAttribute("data-zoom")) return;
      const box = stage.getBoundingClientRect();
      stage.style.setProperty("--x", `${((event.clientX - box.left) / box.width) * 100}%`);
      stage.style.setProperty("--y", `${((event.clientY - box.top) / box.height) * 100}%`);
    });
    if (!swipes) return;
    root.dataset.swipes = "";
    const pressed = (said) => buttons.find(({ button }) => button.classList.contains(`choice--${said}`))?.button;
    wireSwipes({ stage, isZoomed: () => stage.hasAttribute("data-zoom"), answer: (said) => pressed(said)?.click() });
    for (const said of ["pass", "fail"]) find(`rate-swipe-${said}`).textContent = pressed(said)?.querySelector(".choice__label").textContent ?? "";
  }

  if (rows) listKeys();
  else buildQuestions();
  if (!rows) keysView.show();
  wireCommands();
  wirePointers();
  setGround(GROUNDS.includes(remember("ground")) ? remember("ground") : "checker");
  root.dataset.guide = remember("guide") === "closed" ? "closed" : "auto";
  showHistory([]);
  setPressed({});
  setState("loading");
  measure();
  new ResizeObserver(() => {
    measure();
    for (const picture of stage.querySelectorAll("img")) fit(picture);
  }).observe(stage);

  return { show, showLoading, showMessage, showHistory, showProgress, showOutbox, showAhead, showGone, showReopened, showRoleLost, setPressed, nextSize: stickerView.nextSize, toggleEdges: stickerView.toggleEdges, showSoFar, showKeys, sayKeys: keysView.say, announce, remember, nextGround, setZoom, pan, lookCloser: () => setsView?.open(), toggleGuidelines, openDialog, describe: (record) => describeAnswers(record, config.questions) };
}
