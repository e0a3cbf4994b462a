// The part of the view that lists all keys and lets a rater choose their own: press a row, press a key.
import { listRows, refuseKey } from "./keys.js";
import { nameKey, normaliseKey } from "./keymap.js";

const MODIFIERS = ["Shift", "Control", "Alt", "Meta", "AltGraph", "CapsLock"];

function build(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** act(action) gets rekey and reset-keys; buildKey(key) makes what is printed on a button. */
export function createKeysView({ config, keymap, act, buildKey }) {
  const dialog = document.getElementById("rate-help");
  const list = document.getElementById("rate-keys");
  const said = document.getElementById("rate-keys-said");
  let rows = [];
  let waiting = null; // The row whose new key is awaited.

  function buildRow(row) {
    const line = build("div", "keys__row");
    const term = build("dt");
    const button = build("button", "keys__key");
    button.type = "button";
    button.setAttribute("aria-label", `${row.label}: ${row.key ? nameKey(row.key) : "no key"}. Press to change`);
    button.append(row.key ? buildKey(row.key) : build("span", "muted", "none"));
    button.addEventListener("click", () => awaitKey(row));
    term.append(button);
    line.append(term, build("dd", "", row.label));
    row.button = button;
    return line;
  }

  function buildFixed(from, to, label) {
    const line = build("div", "keys__row");
    const term = build("dt", "keys__fixed");
    term.append(buildKey(from), "–", buildKey(to));
    line.append(term, build("dd", "", label));
    return line;
  }

  function show() {
    const focused = rows.find((row) => row.button === document.activeElement)?.label;
    rows = listRows(config, keymap);
    list.replaceChildren(...rows.map(buildRow));
    if (keymap.reasonKeys.size) list.append(buildFixed("1", String(keymap.reasonKeys.size), "Give a reason, before you fail it"));
    if (focused) rows.find((row) => row.label === focused)?.button.focus();
  }

  function awaitKey(row) {
    waiting?.button.removeAttribute("data-waiting");
    waiting = row;
    row.button.dataset.waiting = "";
    say(`Press the new key for “${row.label}”, or Escape to leave it as it is.`);
  }

  function stop() {
    waiting?.button.removeAttribute("data-waiting");
    waiting = null;
  }

  function say(text) {
    said.textContent = text;
  }

  dialog.addEventListener("keydown", (event) => {
    if (!waiting || MODIFIERS.includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Escape") {
      stop();
      say("Nothing was changed.");
      return;
    }
    const key = /^Key[A-Z]$/.test(event.code) && !/^[a-z]$/i.test(event.key) ? event.code[3].toLowerCase() : normaliseKey(event.key);
    const refusal = refuseKey(key, waiting, rows);
    if (refusal) {
      say(refusal);
      return;
    }
    const row = waiting;
    stop();
    act({ type: "rekey", row, key });
  });
  dialog.addEventListener("close", () => {
    stop();
    say("");
  });
  document.getElementById("rate-keys-reset").addEventListener("click", () => act({ type: "reset-keys" }));

  return { show, say };
}
