// Picking the best of several: an answer is the places picked, in their order and joined by +, or none. Pure.

const JOIN = "+";

/** The values that an answer chooses. */
export function readPicks(value) {
  return value ? value.split(JOIN) : [];
}

/**
 * The answer after one more choice was pressed: a place joins the others or leaves them, a choice that does not accept stands alone. Null once nothing
 * is chosen. `count` places are on the screen; those beyond change nothing.
 */
export function togglePick(question, value, pressed, count) {
  const places = question.choices.filter((choice) => choice.accepts === true).map((choice) => choice.value).slice(0, count);
  if (!places.includes(pressed)) return question.choices.some((choice) => choice.value === pressed && choice.accepts !== true) ? pressed : value ?? null;
  const chosen = new Set(readPicks(value).filter((one) => places.includes(one)));
  if (!chosen.delete(pressed)) chosen.add(pressed);
  return places.filter((place) => chosen.has(place)).join(JOIN) || null;
}

/** Whether this choice ends the answer: none of them is good. */
export function endsPick(question, pressed) {
  return question.choices.some((choice) => choice.value === pressed && choice.accepts !== true);
}
