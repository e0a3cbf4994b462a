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

// While a decision is on its way the page still offers to undo the one before it.
let isLeaving = false;
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  if (isLeaving) event.preventDefault();
  isLeaving = true;
  setTimeout(() => (isLeaving = false), 5000);
});
addEventListener("pageshow", () => (isLeaving = false));

document.addEventListener("keydown", (event) => {
  if (isLeaving || event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing || isTyping(event.target)) return;
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
