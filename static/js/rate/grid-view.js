// What a page of stickers looks like: beside view.js the only module that knows its DOM. view.js sees to everything around it.
import { SIZES, chooseTile, findNeighbour } from "./grid.js";
import { nameKey } from "./keymap.js";
import { build, buildKey, find } from "./dom.js";

const BIG_ENOUGH_FOR_WORDS = 560;

/** act(action) gets what a person wants, in the words of grid.js; frame is view.js's view. */
export function createGridView({ frame, markers, act }) {
  const sheet = find("sheet");
  const ground = sheet.parentElement;
  const zoom = find("sheet-zoom");
  const single = markers.length === 1;
  let tiles = []; // {item, button, picture, marks}
  let shape = []; // How many tiles each group has.
  let together = false;
  let focused = 0;
  let boxes = null; // Where the tiles are; read anew after a change of shape, never twice.
  let painting = null; // Whether a mouse that is held marks or clears.

  const letterOf = ({ key, text }) => (key ? nameKey(key) : text.slice(0, 1));

  // ---- what is there from the start ----
  function buildBrushes() {
    if (single) return;
    find("sheet-brushes").append(build("span", "small muted", "A press marks"), ...markers.map((marker) => {
      const button = build("button", "btn btn--sm sheet-bar__brush");
      button.type = "button";
      button.dataset.question = marker.question;
      if (marker.key) button.append(buildKey(marker.key));
      button.append(build("span", "", `No: ${marker.text}`));
      button.addEventListener("click", () => act({ type: "brush", question: marker.question }));
      return button;
    }));
  }

  function buildSizes() {
    find("sheet-sizes").append(...SIZES.map((size) => {
      const button = build("button", "btn btn--sm btn--quiet", String(size));
      button.type = "button";
      button.dataset.size = size;
      button.setAttribute("aria-label", `${size} on a page`);
      button.addEventListener("click", () => act({ type: "size", size }));
      return button;
    }));
    find("sheet-together")?.addEventListener("change", (event) => act({ type: "together", on: event.target.checked }));
    find("sheet-submit").addEventListener("click", () => act({ type: "submit" }));
  }

  // ---- the page ----
  function buildTile(item, index) {
    const button = build("button", "tile");
    button.type = "button";
    button.tabIndex = index === focused ? 0 : -1;
    button.dataset.index = index;
    const picture = build("span", "tile__picture");
    const marks = build("span", "tile__marks");
    marks.setAttribute("aria-hidden", "true");
    picture.append(marks);
    button.append(picture);
    return { item, button, picture, marks };
  }

  function render(groups, isTogether) {
    together = isTogether;
    shape = groups.map((group) => group.length);
    tiles = groups.flat().map(buildTile);
    let index = 0;
    sheet.replaceChildren(...groups.map((group) => {
      const box = build("div", "sheet__group");
      const row = build("div", "sheet__tiles");
      row.append(...group.map(() => tiles[index++].button));
      const words = build("span", "sheet__prompt", group[0].prompt);
      words.setAttribute("aria-hidden", "true"); // Each sticker's own label says it.
      if (together) box.append(words, row);
      else box.append(row, words);
      return box;
    }));
    sheet.dataset.together = together;
    sheet.scrollTop = 0;
    measure();
  }

  /** Puts in the pictures that are there; a picture that is in its place stays as it is. */
  function place(pictureOf) {
    for (const { item, picture } of tiles) {
      const found = pictureOf(item);
      if (!found || picture.querySelector("img")?.src === found.src) continue;
      found.alt = "";
      // Stickers of two items may be the very same picture, which is loaded once and cannot stand in two places.
      picture.prepend(sheet.contains(found) ? found.cloneNode() : found);
    }
  }

  function measure() {
    boxes = null;
    const room = { width: ground.clientWidth - 16, height: ground.clientHeight - 16 };
    const narrow = room.width < BIG_ENOUGH_FOR_WORDS;
    const tile = chooseTile({ ...room, groups: shape, caption: narrow ? 32 : 40, frame: together ? 6 : 0 });
    sheet.style.setProperty("--tile", `${tile}px`);
    sheet.dataset.narrow = narrow;
  }

  function labelOf(item, index, mark) {
    const said = mark.action === "skip" ? "skipped" : mark.action === "flag" ? "reported" : failsOf(mark).map(({ text }) => (single ? "fails" : `no: ${text}`)).join(", ");
    return `Sticker ${index + 1} of ${tiles.length}: ${item.prompt}${said ? `. ${said}` : ""}`;
  }

  const failsOf = (mark) => markers.filter(({ question }) => mark.fails.has(question));

  function showMark(index, mark) {
    const { item, button, marks } = tiles[index];
    const fails = failsOf(mark);
    const state = mark.action !== "answer" ? mark.action : fails.length ? "fail" : "pass";
    button.dataset.mark = state;
    button.setAttribute("aria-pressed", String(state !== "pass"));
    button.setAttribute("aria-label", labelOf(item, index, mark));
    marks.textContent = { skip: "–", flag: "!", fail: single ? "✗" : fails.map(letterOf).join(" "), pass: "" }[state];
  }

  function showCounts({ marked, total, ready }) {
    const words = total ? `Submit: ${total - marked} pass, ${marked} marked` : "Submit the page";
    find("sheet-submit-label").textContent = words;
    find("sheet-submit").setAttribute("aria-disabled", String(!ready));
  }

  function showSettings({ size, isTogether, brush }) {
    for (const button of find("sheet-sizes").children) button.setAttribute("aria-pressed", String(Number(button.dataset.size) === size));
    for (const button of find("sheet-brushes").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.question === brush));
    if (find("sheet-together")) find("sheet-together").checked = isTogether;
  }

  // ---- focus ----
  /** The prompt of the sticker in focus stands above the page, whole. */
  function focus(index, { quietly = false } = {}) {
    if (!tiles.length) return;
    if (tiles[focused]) {
      tiles[focused].button.tabIndex = -1;
      delete tiles[focused].button.dataset.current;
    }
    focused = Math.max(0, Math.min(index, tiles.length - 1));
    const { item, button } = tiles[focused];
    button.tabIndex = 0;
    button.dataset.current = "";
    find("rate-prompt").textContent = item.prompt;
    find("rate-bucket").textContent = item.bucket ?? "";
    if (!quietly && document.activeElement !== button) {
      button.focus({ preventScroll: true });
      button.scrollIntoView({ block: "nearest" });
    }
  }

  function move(direction) {
    boxes ??= tiles.map(({ button }) => {
      const { left: x, top: y } = button.getBoundingClientRect();
      return { x, y: y + sheet.scrollTop };
    });
    if (boxes.length) focus(findNeighbour(boxes, focused, direction));
  }

  function fillZoom() {
    const source = tiles[focused]?.picture.querySelector("img");
    if (!source) return;
    const large = new Image();
    large.src = source.src;
    large.alt = "";
    zoom.replaceChildren(large);
  }

  // ---- pointers ----
  const tileAt = (target) => target instanceof Element && target.closest(".tile");
  const indexOf = (button) => Number(button.dataset.index);

  function wirePointers() {
    // A mouse paints: what it does to the first sticker it does to all that it is drawn over. A finger scrolls, and marks by a tap.
    sheet.addEventListener("pointerdown", (event) => {
      const button = event.pointerType === "mouse" && event.button === 0 && tileAt(event.target);
      if (!button) return;
      painting = button.dataset.mark === "pass";
      focus(indexOf(button));
      act({ type: "toggle", index: indexOf(button), on: painting, brushed: true });
    });
    sheet.addEventListener("pointerover", (event) => {
      const button = painting !== null && event.buttons === 1 && tileAt(event.target);
      if (button) act({ type: "toggle", index: indexOf(button), on: painting, brushed: true });
    });
    addEventListener("pointerup", () => setTimeout(() => (painting = null))); // The click that ends it comes first.
    addEventListener("pointercancel", () => (painting = null));
    sheet.addEventListener("click", (event) => {
      const button = tileAt(event.target);
      if (!button || painting !== null) return;
      focus(indexOf(button));
      act({ type: "toggle", index: indexOf(button), brushed: true });
    });
    sheet.addEventListener("focusin", (event) => {
      const button = tileAt(event.target);
      if (button && indexOf(button) !== focused) focus(indexOf(button), { quietly: true });
    });
    sheet.addEventListener("dragstart", (event) => event.preventDefault());
    for (const button of document.querySelectorAll('[data-command="zoom"]')) button.addEventListener("click", fillZoom);
  }

  buildBrushes();
  buildSizes();
  wirePointers();
  new ResizeObserver(measure).observe(ground);

  return {
    render,
    place,
    focus,
    move,
    fillZoom,
    showMark,
    showCounts,
    showSettings,
    clear() {
      tiles = [];
      shape = [];
      boxes = null;
      focused = 0;
      sheet.replaceChildren();
    },
    setReady: () => (find("rate").dataset.state = "ready"),
    focused: () => focused,
    itemAt: (index = focused) => tiles[index]?.item ?? null,
    remember: frame.remember,
  };
}
