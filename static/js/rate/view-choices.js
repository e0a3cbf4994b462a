// The questions with their choices, as buttons that say by which key they are pressed.
import { toneOf } from "./answers.js";
import { build, buildKey, find } from "./dom.js";
import { asksInTurn, nameKey } from "./keymap.js";
import { readPicks } from "./pick.js";

/** What a button is pressed by, on the button. A candidate named by its digit says it once. */
export function printKey(button, key, label) {
  button.querySelector("kbd")?.remove();
  if (key) button.setAttribute("aria-keyshortcuts", key);
  else button.removeAttribute("aria-keyshortcuts");
  if (!key || nameKey(key) === label) return;
  if (label === undefined) button.append(buildKey(key));
  else button.prepend(buildKey(key));
}

/** mirrored: as fingers swipe, the pass at the right. */
export function createChoicesView({ config, keymap, act, mirrored }) {
  const choices = find("rate-choices");
  const buttons = []; // {button, question, value, isPressed, isEnabled}
  const rows = []; // Of the questions.
  const inTurn = asksInTurn(config);

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

  function buildAll() {
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
      rows.push(row);
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

  function showKeys() {
    for (const { button, question, value } of buttons) {
      if (question === undefined) printKey(button, keymap.passAll, "Pass all");
      else printKey(button, keymap.choiceKeys.get(`${question}\0${value}`), button.querySelector(".choice__label").textContent);
    }
  }

  /** What is answered so far. On the key path, as what follows: what is so already is not touched. */
  function setPressed(draft) {
    if (inTurn) {
      const open = Math.max(0, config.questions.findIndex((question) => !(question.name in draft)));
      rows.forEach((row, index) => row.hidden === (index !== open) || row.toggleAttribute("hidden", index !== open));
    }
    for (const entry of buttons) {
      const isPressed = entry.question !== undefined && readPicks(draft[entry.question]).includes(entry.value);
      if (isPressed === entry.isPressed) continue;
      entry.isPressed = isPressed;
      entry.button.setAttribute("aria-pressed", String(isPressed));
    }
  }

  function setEnabled(isEnabled) {
    for (const entry of buttons) {
      if (isEnabled === entry.isEnabled) continue;
      entry.isEnabled = isEnabled;
      entry.button.setAttribute("aria-disabled", String(!isEnabled));
    }
  }

  /** Of a pick there may be fewer candidates than there are digits. */
  function showCandidates(question, count) {
    for (const { button, question: name, value } of buttons) if (name === question) button.hidden = Number(value) > count;
  }

  return { buildAll, showKeys, setPressed, setEnabled, showCandidates, find: (said) => buttons.find(({ button }) => button.classList.contains(`choice--${said}`))?.button };
}
