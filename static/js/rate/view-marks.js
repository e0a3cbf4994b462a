// The part of the view in which a rater says why something fails: reason chips, the prompt's words, a point in the picture.
import { build } from "./dom.js";

const STEP = 0.05;

/** act(action) gets reason, word and point; buildKey(key) makes what is printed on a chip. */
export function createMarksView({ config, act, buildKey, keys }) {
  const strip = document.getElementById("rate-reasons");
  const prompt = document.getElementById("rate-prompt");
  const stage = document.getElementById("rate-stage");
  const chips = []; // {chip, question, reason, isGiven}
  const groups = new Map(); // Question name -> its group of chips.
  const marksWords = config.questions.some((question) => question.marks === "words");
  const marksPoint = config.questions.some((question) => question.marks === "point");
  let place = null; // The chip of the point.
  let point = null;
  let words = [];

  function buildChip(label, key, run) {
    const chip = build("button", "reason");
    chip.type = "button";
    chip.setAttribute("aria-pressed", "false");
    chip.append(build("span", "", label));
    setKey(chip, key);
    chip.addEventListener("click", run);
    return chip;
  }

  function setKey(chip, key) {
    chip.querySelector("kbd")?.remove();
    if (key) chip.prepend(buildKey(key));
    if (key) chip.setAttribute("aria-keyshortcuts", key);
    else chip.removeAttribute("aria-keyshortcuts");
  }

  function buildGroup(question) {
    const group = build("div", "reasons__group");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", `Why it fails: ${question.text}`);
    for (const reason of question.reasons ?? []) {
      const chip = buildChip(reason, keys().get(`${question.name}\0${reason}`), () => act({ type: "reason", question: question.name, reason }));
      chips.push({ chip, question: question.name, reason });
      group.append(chip);
    }
    if (question.marks === "point") group.append(buildPlace());
    groups.set(question.name, group);
    return group;
  }

  /** The point by keyboard: the chip sets and clears it, and the arrows move it. */
  function buildPlace() {
    place = buildChip("Place in the picture", null, () => act({ type: "point", point: point ? null : [0.5, 0.5] }));
    place.title = "Click in the picture, or press here and move the mark with the arrow keys";
    place.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      const [x, y] = point ?? [0.5, 0.5];
      act({ type: "point", point: [x + step[0], y + step[1]] });
    });
    return place;
  }

  function wirePicture() {
    stage.addEventListener("click", (event) => {
      const picture = event.target.closest?.("img");
      if (!picture) return;
      const box = picture.getBoundingClientRect(); // Zoomed or not: the box is as it is seen.
      act({ type: "point", point: [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] });
    });
  }

  // One stop of the tabulator for all words; the arrows go from one to the next.
  function wireWords() {
    prompt.setAttribute("role", "group");
    prompt.setAttribute("aria-label", "The prompt. Press a word that is wrong or missing");
    prompt.addEventListener("click", (event) => {
      const index = words.indexOf(event.target.closest?.(".word"));
      if (index >= 0) act({ type: "word", place: index });
    });
    prompt.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const index = words.indexOf(event.target);
      if (!step || index < 0) return;
      event.preventDefault();
      event.stopPropagation();
      const next = words[(index + step + words.length) % words.length];
      for (const word of words) word.tabIndex = word === next ? 0 : -1;
      next.focus();
    });
  }

  function showPrompt(item) {
    if (!marksWords || !item?.words?.length) {
      prompt.textContent = item?.prompt ?? "";
      words = [];
      return;
    }
    words = item.words.map((text, index) => {
      const word = build("button", "word", text);
      word.type = "button";
      word.tabIndex = index ? -1 : 0;
      word.setAttribute("aria-pressed", "false");
      return word;
    });
    prompt.replaceChildren(...words.flatMap((word, index) => (index ? [" ", word] : [word])));
  }

  function showPoint(frame) {
    frame?.querySelector(".rate__point")?.remove();
    if (!frame || !point) return;
    const mark = build("span", "rate__point");
    mark.style.setProperty("--x", point[0]);
    mark.style.setProperty("--y", point[1]);
    frame.append(mark);
  }

  /** marks: those of the item on the screen; asked: the question that still needs a reason, or null. */
  function setMarks(marks, asked = null) {
    // On the key path: what is so already is not touched.
    for (const entry of chips) {
      const isGiven = marks.reasons.get(entry.question)?.includes(entry.reason) ?? false;
      if (isGiven !== entry.isGiven) entry.chip.setAttribute("aria-pressed", String(isGiven));
      entry.isGiven = isGiven;
    }
    for (const [name, group] of groups) if (group.hasAttribute("data-asked") !== (name === asked)) group.toggleAttribute("data-asked", name === asked);
    if (asked) groups.get(asked).scrollIntoView({ block: "nearest", inline: "nearest" });
    strip.toggleAttribute("data-asked", asked !== null);
    words.forEach((word, index) => word.setAttribute("aria-pressed", String(marks.words.includes(index))));
    point = marks.point;
    place?.setAttribute("aria-pressed", String(point !== null));
    showPoint(stage.firstElementChild);
  }

  const asking = config.questions.filter((question) => question.reasons?.length || question.marks === "point");
  strip.hidden = !asking.length;
  strip.dataset.groups = asking.length;
  if (asking.length) strip.append(...config.questions.map(buildGroup));
  if (marksWords) wireWords();
  if (marksPoint) {
    stage.dataset.point = "";
    wirePicture();
  }

  return {
    showPrompt,
    setMarks,
    showKeys() {
      for (const { chip, question, reason } of chips) setKey(chip, keys().get(`${question}\0${reason}`));
    },
  };
}
