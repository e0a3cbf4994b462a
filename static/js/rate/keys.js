// A rater's own keys: choosing one, what speaks against it, and keeping the choice here and on the server. Pure.
import { COMMANDS, asksInTurn, hasCommand, nameKey } from "./keymap.js";

const NAMED = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Backspace", "Delete", "Home", "End", "PageUp", "PageDown"];

/** Everything that has a key: {label, key or null, command} or {label, key, question, values: [[question, value], ...]}. */
export function listRows(config, keymap) {
  const { kind, questions } = config;
  const inTurn = asksInTurn({ kind, questions });
  const rows = [];
  for (const question of inTurn ? questions.slice(0, 1) : questions) {
    for (const choice of question.choices) {
      // Questions that are asked in turn share their keys.
      const sharing = inTurn ? questions.filter((other) => other.choices.some((one) => one.value === choice.value)) : [question];
      rows.push({
        label: questions.length > 1 && !inTurn ? `${question.text} ${choice.label}` : choice.label,
        key: keymap.choiceKeys.get(`${question.name}\0${choice.value}`) ?? null,
        values: sharing.map((one) => [one.name, choice.value]),
      });
    }
  }
  if (keymap.passAll) rows.push({ label: "Pass all questions", key: keymap.passAll, command: "pass_all" });
  for (const command of COMMANDS) if (hasCommand(command, config)) rows.push({ label: command.label, key: keymap.commandKeys.get(command.name) ?? null, command: command.name });
  return rows;
}

/** Why a key cannot be that of this row, in a sentence; null where it can. */
export function refuseKey(key, row, rows) {
  if (/^[0-9]$/.test(key)) return "Digits give reasons. Choose another key.";
  if (key.length !== 1 && !NAMED.includes(key)) return `${nameKey(key)} has a meaning of its own on every page. Choose another key.`;
  if (key === " ") return "Space presses the button that has the focus. Choose another key.";
  const other = rows.find((one) => one.key === key && one.label !== row.label);
  return other ? `${nameKey(key)} is already the key of “${other.label}”. Choose another, or give that one a new key first.` : null;
}

/** The keys with this one for the row. */
export function withKey(keys, kind, row, key) {
  const next = { commands: { ...keys?.commands }, answers: structuredClone(keys?.answers ?? {}) };
  if (row.command) next.commands[row.command] = key;
  for (const [question, value] of row.values ?? []) {
    next.answers[kind] ??= {};
    next.answers[kind][question] ??= {};
    next.answers[kind][question][value] = key;
  }
  return next;
}

/** The usual keys again, for commands and for the answers of this kind. */
export function withoutKeys(keys, kind) {
  const { [kind]: _, ...others } = keys?.answers ?? {};
  return { commands: {}, answers: others };
}

/**
 * Keeps the choice: in the browser at once, on the server when it can be reached. storage() -> localStorage, or an error where it is forbidden; send(keys) -> {ok, status, reason}.
 * What the server has not taken yet goes before what it has.
 */
export function createKeyStore({ user, stored = {}, storage, send }) {
  const name = `atelier-rate-keys-${user}`;
  let keys = stored;
  let unsent = false;
  let taken = stored; // What the server has.

  function read() {
    try {
      const kept = JSON.parse(storage().getItem(name));
      if (kept) [keys, unsent] = [kept, true];
    } catch {
      // Nothing readable was kept: the server's are taken.
    }
  }

  function write() {
    try {
      if (unsent) storage().setItem(name, JSON.stringify(keys));
      else storage().removeItem(name);
    } catch {
      // Without storage the choice lasts as long as the page, and on the server.
    }
  }

  /** Returns a sentence where the server refused the choice, else null. */
  async function flush() {
    if (!unsent) return null;
    const sent = keys;
    let answer;
    try {
      answer = await send(sent);
    } catch {
      return null; // Offline: it is kept, and sent when the connection is back.
    }
    if (keys !== sent) return flush();
    if (!answer.ok && answer.status !== 422) return null;
    unsent = false;
    if (answer.ok) taken = sent;
    else keys = taken;
    write();
    return answer.ok ? null : answer.reason ?? "The server did not take these keys.";
  }

  read();
  return {
    get: () => keys,
    isUnsent: () => unsent,
    set(next) {
      keys = next;
      unsent = true;
      write();
      return flush();
    },
    flush,
  };
}
