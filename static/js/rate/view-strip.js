// The last judgments, each of which can be undone.
import { describeAnswers, markOf } from "./answers.js";
import { build, find } from "./dom.js";

const MARKS = { pass: "✓", fail: "✗", skip: "–", even: "•" };

/** act(action) gets an undo. isOfSets: whether an item is two sets of pictures. */
export function createStripView({ root, questions, isOfSets, act }) {
  const entries = new WeakMap(); // By record.

  function buildEntry({ item, record }) {
    const said = describeAnswers(record, questions);
    const entry = build("li");
    const button = build("button", "strip__item");
    button.type = "button";
    button.title = `${item.prompt}: ${said}. Press to undo.`;
    button.setAttribute("aria-label", `Undo: ${item.prompt}, ${said}`);
    // Of two sets the first of each.
    for (const image of isOfSets ? [item.images[0], item.images[item.images.length / 2]] : item.images.slice(0, 2)) {
      const small = new Image(40, 40);
      small.src = image.url;
      small.alt = "";
      // What was judged long ago has no picture any more, but can be undone.
      small.addEventListener("error", () => small.remove());
      button.append(small);
    }
    const mark = markOf(record, questions);
    button.append(build("span", `strip__mark strip__mark--${mark}`, MARKS[mark]));
    button.addEventListener("click", () => act({ type: "undo", assignment: item.assignment }));
    entry.append(button);
    return entry;
  }

  function show(history, count = 20) {
    const strip = find("rate-strip");
    const focused = [...strip.children].findIndex((entry) => entry.contains(document.activeElement));
    // What is there already stays as it is: to lay all of it out anew takes longer than everything else after a key.
    const wanted = history.slice(0, count).map((judged) => {
      if (!entries.has(judged.record)) entries.set(judged.record, buildEntry(judged));
      return entries.get(judged.record);
    });
    for (const entry of [...strip.children]) if (!wanted.includes(entry)) entry.remove();
    wanted.forEach((entry, place) => {
      if (strip.children[place] !== entry) strip.insertBefore(entry, strip.children[place] ?? null);
    });
    // Whoever undid by the strip goes on in it, or at the work where nothing is left in it.
    if (focused >= 0 && !strip.contains(document.activeElement)) (strip.children[Math.min(focused, strip.children.length - 1)]?.firstElementChild ?? find("main")).focus();
    // A button that is disabled would lose the focus of whoever has just pressed it.
    for (const button of root.querySelectorAll('[data-command="undo"]')) button.setAttribute("aria-disabled", String(history.length === 0));
  }

  return { show };
}
