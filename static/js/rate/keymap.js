// Keys to actions. Pure: it gets what a keyboard event says and answers what it means, or null.

/** A command that `needs` a field of the page's configuration is there where that is set; one may be there for a kind `only`, or `not`. */
export const COMMANDS = [
  { name: "undo", keys: ["u", "Backspace"], label: "Undo the last one" },
  { name: "skip", keys: ["s"], label: "Skip" },
  { name: "skip_why", keys: ["y"], label: "Skip, and say why" },
  { name: "flag", keys: ["x"], label: "Report a broken picture or prompt" },
  { name: "background", keys: ["b"], label: "Change the background" },
  { name: "size", keys: ["r"], label: "Real size: larger, smaller, off", not: "sets" },
  { name: "edges", keys: ["o"], label: "Show soft edges and holes", not: "sets" },
  { name: "zoom", keys: ["z"], label: "Zoom while held; arrows move it", not: "sets" },
  { name: "closer", keys: ["z"], label: "Look closely at one picture", only: "sets" },
  { name: "view", keys: ["v"], label: "Many at once, or one at a time", needs: "other_view_url" },
  { name: "guidelines", keys: ["g"], label: "Guidelines" },
  { name: "help", keys: ["?"], label: "All keys" },
];

/** Whether a page with this configuration has the command. */
export function hasCommand({ needs, only, not }, config) {
  return (!needs || Boolean(config[needs])) && (!only || only === config.kind) && not !== config.kind;
}

// Used where the server names no key: two rows of pairs that lie under both hands.
const PAIRS = [["q", "a"], ["w", "d"], ["e", "c"], ["r", "v"]];
const SINGLE = { alignment: ["f", "j"], compare: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], sets: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"] };
const ALIASES = { left: "ArrowLeft", right: "ArrowRight", up: "ArrowUp", down: "ArrowDown", "←": "ArrowLeft", "→": "ArrowRight", "↑": "ArrowUp", "↓": "ArrowDown", space: " ", enter: "Enter" };
const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "Space", Backspace: "⌫" };

/** "F" -> "f", "left" -> "ArrowLeft": one spelling for each key. */
export function normaliseKey(key) {
  if (!key) return "";
  const alias = ALIASES[key.toLowerCase()];
  if (alias) return alias;
  return key.length === 1 ? key.toLowerCase() : key;
}

/** What is printed on the button. */
export function nameKey(key) {
  return NAMES[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}

/** Whether the questions come one after the other, so that all may share their keys: those of a comparison. */
export function asksInTurn({ kind, questions }) {
  return ["compare", "sets"].includes(kind) && questions.length > 1;
}

/** Which question a shared key answers: the first that is still open. */
export function pickOption(action, draft) {
  if (!action.options) return action;
  return action.options.find((option) => !(option.question in draft)) ?? action.options[0];
}

function isAccepting(choice) {
  return choice.accepts === true;
}

/**
 * The bindings of one campaign. `keys`: those that the rater has chosen, {commands: {name: key}, answers: {kind: {question: {value: key}}}};
 * they go before the usual ones. A question's keys win over a command's; a command whose keys are all taken has none.
 * The action of a key that several questions share has `options` instead of question and value.
 * Returns {bindings: Map(key -> action), choiceKeys: Map("question\0value" -> key), reasonKeys: Map("question\0reason" -> digit),
 * commandKeys: Map(name -> key), passAll: key or null}. The digits of reasons run on from one question to the next.
 */
export function buildKeymap(config) {
  const { kind, questions, keys = {} } = config;
  const inTurn = asksInTurn({ kind, questions });
  const bindings = new Map();
  const choiceKeys = new Map();
  const commandKeys = new Map();
  const bind = (key, action) => {
    if (!key || bindings.has(key)) return false;
    bindings.set(key, action);
    return true;
  };
  const bindChoice = (question, choice, key) => {
    const option = { question: question.name, value: choice.value };
    const shared = inTurn && bindings.get(key);
    if (shared) shared.options.push(option);
    else if (!bind(key, inTurn ? { type: "answer", options: [option] } : { type: "answer", ...option })) return;
    choiceKeys.set(`${option.question}\0${option.value}`, key);
  };

  if (questions.some((question) => question.multiple)) bind("Enter", { type: "submit" });
  const own = (question, choice) => keys.answers?.[kind]?.[question.name]?.[choice.value];
  for (const question of questions) for (const choice of question.choices) if (own(question, choice)) bindChoice(question, choice, own(question, choice));
  for (const question of questions) {
    for (const choice of question.choices) if (!choiceKeys.has(`${question.name}\0${choice.value}`)) bindChoice(question, choice, normaliseKey(choice.key));
  }

  const defaults = questions.length > 1 && !inTurn ? PAIRS : [SINGLE[kind] ?? ["1", "2", "3", "4", "5", "6", "7", "8", "9"]];
  questions.forEach((question, row) => {
    question.choices.forEach((choice, column) => {
      if (!choiceKeys.has(`${question.name}\0${choice.value}`)) bindChoice(question, choice, (inTurn ? defaults[0] : defaults[row])?.[column]);
    });
  });

  const reasonKeys = new Map();
  const reasons = questions.flatMap((question) => (question.reasons ?? []).map((reason) => ({ type: "reason", question: question.name, reason })));
  reasons.slice(0, 9).forEach((action, index) => {
    if (bind(String(index + 1), action)) reasonKeys.set(`${action.question}\0${action.reason}`, String(index + 1));
  });

  let passAll = null;
  const required = questions.filter((question) => question.required !== false);
  if (required.length > 1 && required.every((question) => question.choices.some(isAccepting))) {
    const answers = Object.fromEntries(required.map((question) => [question.name, question.choices.find(isAccepting).value]));
    passAll = [keys.commands?.pass_all, "p", " ", "0"].find((key) => bind(key, { type: "answer-all", answers })) ?? null;
  }

  const commands = COMMANDS.filter((command) => hasCommand(command, config));
  for (const { name } of commands) if (keys.commands?.[name] && bind(keys.commands[name], { type: name })) commandKeys.set(name, keys.commands[name]);
  for (const command of commands) {
    for (const key of command.keys) {
      if (bind(key, { type: command.name }) && !commandKeys.has(command.name)) commandKeys.set(command.name, key);
    }
  }
  return { bindings, choiceKeys, reasonKeys, commandKeys, passAll };
}

/**
 * The action of a key press, or null. `event` needs key, code, ctrlKey, metaKey, altKey, repeat; `busy` says that a text field or a
 * dialog has the keyboard. A key that is held does not answer again and again.
 */
export function readKey(keymap, event, busy = false) {
  if (busy || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return null;
  let key = normaliseKey(event.key);
  if (!keymap.bindings.has(key) && /^Key[A-Z]$/.test(event.code ?? "") && !/^[a-z]$/.test(key)) key = event.code[3].toLowerCase();
  // Keyboards such as the French one give digits with Shift; their row answers without it.
  if (!keymap.bindings.has(key) && /^Digit[1-9]$/.test(event.code ?? "")) key = event.code[5];
  const action = keymap.bindings.get(key) ?? null;
  if (action && event.repeat && action.type !== "zoom") return null;
  return action;
}
