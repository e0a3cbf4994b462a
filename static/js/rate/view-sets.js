// Two sets of pictures beside each other, and a closer look at one picture: by a press, or by key at the one that was looked at last.
import { build } from "./dom.js";

const SIDES = ["Left", "Right"];

export function createSetsView() {
  const dialog = document.getElementById("rate-closer");
  const title = document.getElementById("rate-closer-title");
  const about = document.getElementById("rate-closer-about");
  const place = document.getElementById("rate-closer-picture");
  let shown = { item: null, pictures: [] };
  let at = 0; // The picture that was looked at last.

  const nameOf = (index) => {
    const half = shown.pictures.length / 2;
    return `${SIDES[Math.floor(index / half)]} set, picture ${(index % half) + 1} of ${half}`;
  };

  function buildCell(picture, index) {
    const cell = build("button", "rate__cell");
    cell.type = "button";
    picture.alt = nameOf(index);
    cell.append(picture);
    cell.addEventListener("click", () => open(index));
    cell.addEventListener("pointerenter", () => (at = index));
    cell.addEventListener("focus", () => (at = index));
    return cell;
  }

  function buildSet(side, cells) {
    const set = build("section", "rate__set");
    const head = build("h2", "rate__set-name", SIDES[side]);
    head.append(build("span", "rate__set-where", side ? " (the lower set)" : " (the upper set)"));
    const grid = build("div", "rate__set-grid");
    grid.dataset.count = cells.length;
    grid.append(...cells);
    set.setAttribute("aria-label", `${SIDES[side]} set`);
    set.append(head, grid);
    return set;
  }

  function show(index) {
    at = (index + shown.pictures.length) % shown.pictures.length;
    const copy = new Image();
    copy.decoding = "sync";
    copy.src = shown.pictures[at].src;
    copy.alt = nameOf(at);
    place.replaceChildren(copy);
    title.textContent = nameOf(at);
    about.textContent = shown.item.images[at].prompt ?? shown.item.prompt;
  }

  function open(index = at) {
    if (!shown.pictures.length) return;
    show(index);
    if (!dialog.open) dialog.showModal();
  }

  for (const button of dialog.querySelectorAll("[data-step]")) button.addEventListener("click", () => show(at + Number(button.dataset.step)));
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(at + step);
  });

  return {
    /** The elements of an item whose pictures are decoded: the first half of them is the left set. */
    build(item, pictures) {
      shown = { item, pictures };
      at = 0;
      if (dialog.open) dialog.close();
      const cells = pictures.map(buildCell);
      const half = cells.length / 2;
      return [buildSet(0, cells.slice(0, half)), buildSet(1, cells.slice(half))];
    },
    open,
  };
}
