// The changed examples of the guidelines, answered before more work comes: by the keys of the rating screen, each told at once.
import { asksInTurn, buildKeymap, pickOption, readKey } from "./keymap.js";
import { build, buildKey, find, readConfig } from "./view.js";
import { PATIENCE } from "./server.js";
import { isBusy } from "./session.js";

const config = readConfig();
const keymap = buildKeymap(config);
const inTurn = asksInTurn(config);
const required = config.questions.filter((question) => question.required !== false);
const examples = config.examples;
const buttons = []; // {button, question, value}

let at = 0; // Which of `examples` is on the screen.
let right = config.right;
let draft = {};
let state = "intro"; // intro, asking, sending, told

function buildChoices() {
  for (const question of config.questions) {
    const row = build("fieldset", "question");
    row.append(build("legend", "question__text", question.text));
    if (question.help) row.append(build("p", "question__help", question.help));
    const box = build("div", "question__choices");
    for (const choice of question.choices) {
      const tone = choice.accepts === true ? "pass" : question.choices.some((other) => other.accepts === true) ? "fail" : "even";
      const button = build("button", `choice choice--${tone}`);
      button.type = "button";
      const key = keymap.choiceKeys.get(`${question.name}\0${choice.value}`);
      if (key) button.append(buildKey(key));
      if (key) button.setAttribute("aria-keyshortcuts", key);
      button.append(build("span", "choice__label", choice.label));
      button.addEventListener("click", () => answer(question.name, choice.value));
      buttons.push({ button, question: question.name, value: choice.value });
      box.append(button);
    }
    row.append(box);
    find("round-choices").append(row);
  }
  find("round-choices").dataset.questions = inTurn ? 1 : config.questions.length;
}

function paint() {
  for (const { button, question, value } of buttons) {
    button.setAttribute("aria-pressed", String(draft[question] === value));
    button.setAttribute("aria-disabled", String(state !== "asking"));
  }
  if (!inTurn) return;
  const open = config.questions.findIndex((question) => !(question.name in draft));
  [...find("round-choices").children].forEach((row, index) => row.toggleAttribute("hidden", index !== Math.max(0, open)));
}

function ask() {
  const example = examples[at];
  state = "asking";
  draft = {};
  find("round-intro").hidden = true;
  find("round").hidden = false;
  find("round-next").hidden = true;
  find("round-told").replaceChildren();
  find("round-title").textContent = example.prompt;
  find("round-figures").textContent = `${config.of - examples.length + at + 1} of ${config.of}`;
  find("round-images").replaceChildren(...example.images.map((image, index) => {
    const picture = new Image(image.width, image.height);
    picture.src = image.url;
    picture.alt = example.images.length > 1 ? `Sticker ${index + 1}` : "The sticker";
    return picture;
  }));
  paint();
  find("round-title").focus();
}

function answer(question, value) {
  if (state !== "asking") return;
  draft = { ...draft, [question]: value };
  paint();
  if (required.every(({ name }) => name in draft)) send();
}

async function send() {
  state = "sending";
  paint();
  const example = examples[at];
  const body = JSON.stringify({ example: example.example, attempt: config.attempt, answers: draft });
  let data = null;
  let status = 0;
  try {
    const response = await fetch(config.url, { method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json", "X-CSRFToken": config.csrf }, body, signal: AbortSignal.timeout(PATIENCE) });
    status = response.status;
    data = await response.json();
  } catch {
    // Said below: nothing came back that can be read.
  }
  if (status === 200) tell(data);
  else fail(typeof data?.detail === "string" ? data.detail : "The server cannot be reached. Try again.", status === 409);
}

function tell({ right: isRight, said, why, ended }) {
  state = "told";
  right += isRight ? 1 : 0;
  const box = build("div", `callout callout--${isRight ? "ok" : "warn"}`);
  const words = build("div");
  words.append(build("strong", "", isRight ? "Right" : `The right answer: ${said.join("; ")}`));
  if (why) words.append(build("p", "", why));
  box.append(words);
  if (ended) words.append(build("p", "", ended.passed ? `${ended.right} of ${ended.of} were right. You have passed.` : `${ended.right} of ${ended.of} were right, and ${ended.percent}% have to be. Read the guidelines and try again.`));
  find("round-told").replaceChildren(box);
  paint();
  const next = ended?.passed ? find("round-on") : find("round-next");
  next.hidden = false;
  next.dataset.again = String(Boolean(ended));
  next.focus();
}

function fail(sentence, isOutdated) {
  const box = build("div", "callout callout--bad");
  const words = build("div");
  words.append(build("p", "", sentence));
  box.append(words);
  find("round-told").replaceChildren(box);
  state = isOutdated ? "told" : "asking";
  draft = {};
  paint();
  if (!isOutdated) return;
  find("round-next").hidden = false;
  find("round-next").dataset.again = "true";
  find("round-next").focus();
}

find("round-begin").addEventListener("click", ask);
find("round-next").addEventListener("click", (event) => {
  if (event.currentTarget.dataset.again === "true") {
    location.reload();
    return;
  }
  at += 1;
  ask();
});
document.addEventListener("keydown", (event) => {
  if (state !== "asking" || event.key === "Enter") return;
  const action = readKey(keymap, event, isBusy(event));
  if (action?.type === "answer") {
    event.preventDefault();
    const { question, value } = pickOption(action, draft);
    answer(question, value);
  }
});
buildChoices();
paint();
