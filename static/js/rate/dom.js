// What every part of the rater that knows the DOM needs.
import { nameKey } from "./keymap.js";

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

/** Words that are there already cost nothing. */
export function say(id, text) {
  const element = find(id);
  if (element.textContent !== text) element.textContent = text;
}

export function toggle(id, on) {
  const element = find(id);
  if (element.hidden === on) element.hidden = !on;
}

/** For those who do not see it. */
export function announce(text) {
  find("rate-live").textContent = text;
}

/** A choice of this browser's. Without a value it is read. */
export function remember(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(`atelier-rate-${name}`);
    localStorage.setItem(`atelier-rate-${name}`, value);
  } catch {
    // Forbidden storage costs no more than the memory of a preference.
  }
  return null;
}
