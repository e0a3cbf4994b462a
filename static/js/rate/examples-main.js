// The changed examples of the guidelines, answered before more work comes: by the keys of the rating screen, each told at once.
import { toneOf } from "./answers.js";
import { build, buildKey, find, readConfig } from "./dom.js";
import { createKeeper } from "./keeper.js";
import { asksInTurn, buildKeymap, pickOption, readKey } from "./keymap.js";
import { backOff } from "./outbox.js";
import { createServer, isAway } from "./server.js";
import { isBusy } from "./session.js";

const config = readConfig();
const keymap = buildKeymap(config);
const inTurn = asksInTurn(config);
const required = config.questions.filter((question) => question.required !== false);
const examples = config.examples;
const server = createServer({ config, readConfig, pageUrl: location.href });
const buttons = []; // {button, question, value}

let at = 0; // Which of `examples` is on the screen.
let right = config.right;
let draft = {};
let state = "intro"; // intro, asking, sending, told
let failures = 0;
let retry = null; // The timer by which an answer is sent again.

function buildChoices() {
  for (const question of config.questions) {
    const row = build("fieldset", "question");
    row.append(build("legend", "question__text", question.text));
    if (question.help) row.append(build("p", "question__help", question.help));
    const box = build("div", "question__choices");
    for (const choice of question.choices) {
      const button = build("button", `choice choice--${toneOf(choice, question)}`);
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
  const answer = { example: example.example, attempt: config.attempt, answers: draft };
  const { ok, status, reason, data } = await server.answerExample(answer).catch(() => ({ ok: false, status: 0 }));
  if (ok) tell(data);
  else if (isAway(status)) wait();
  else fail(reason ?? "The server did not take the answer. Try again.", status === 409);
}

/** Without an answer nothing is told, so nothing more is asked; it goes on by itself. */
function wait() {
  failures += 1;
  const again = build("button", "btn btn--sm", "Try now");
  again.type = "button";
  again.addEventListener("click", resend);
  showCallout("warn", build("p", "", "The server cannot be reached. Your answer stays here while this page is open, and is sent as soon as that is possible: only then it is told what is right."), again);
  retry = setTimeout(resend, backOff(failures));
}

function resend() {
  if (retry === null) return;
  clearTimeout(retry);
  retry = null;
  send();
}

function showCallout(tone, ...said) {
  const box = build("div", `callout callout--${tone}`);
  const words = build("div");
  words.append(...said);
  box.append(words);
  find("round-told").replaceChildren(box);
}

function tell({ right: isRight, said, why, ended }) {
  state = "told";
  failures = 0;
  right += isRight ? 1 : 0;
  const words = [build("strong", "", isRight ? "Right" : `The right answer: ${said.join("; ")}`)];
  if (why) words.push(build("p", "", why));
  if (ended) words.push(build("p", "", ended.passed ? `${ended.right} of ${ended.of} were right. You have passed.` : `${ended.right} of ${ended.of} were right, and ${ended.percent}% have to be. Read the guidelines and try again.`));
  showCallout(isRight ? "ok" : "warn", ...words);
  paint();
  const next = ended?.passed ? find("round-on") : find("round-next");
  next.hidden = false;
  next.dataset.again = String(Boolean(ended));
  next.focus();
}

function fail(sentence, isOutdated) {
  showCallout("bad", build("p", "", sentence));
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
addEventListener("online", resend);
buildChoices();
paint();
createKeeper({ config, page: location.href, pictures: () => [] }).note(); // The worker reads in the page what it shows: each answer signs it anew.
