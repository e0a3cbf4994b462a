// The keys of the page on which a curator decides: each presses what has it printed on. The last answer that is needed decides.

import { normaliseKey } from "./rate/keymap.js";

function isTyping(target) {
  return target.closest?.("input:not([type='radio']), textarea, select, dialog") !== null;
}

/** Of several questions that share a key, the first without an answer takes it. */
function findTarget(key) {
  const found = [...document.querySelectorAll("[data-key]")].filter((each) => normaliseKey(each.dataset.key) === key);
  const open = found.find((each) => each.type !== "radio" || !each.form.elements[each.name].value);
  return open ?? found[0];
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing || isTyping(event.target)) return;
  const target = findTarget(normaliseKey(event.key));
  if (!target) return;
  event.preventDefault();
  if (target.type !== "radio") {
    target.click();
    return;
  }
  target.checked = true;
  target.focus();
  if (target.form.checkValidity()) target.form.requestSubmit();
});
