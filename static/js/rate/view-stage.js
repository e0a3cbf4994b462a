// The pictures of what is judged: as large as there is room, and larger where somebody looks closely.
import { arrange, sizeOf } from "./arrange.js";
import { announce, build } from "./dom.js";
import { readPicks } from "./pick.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** picks: the question that asks for the best of several, if one does; setsView: what lays out two sets. isGrid: whether what is looked at closely stands elsewhere. */
export function createStageView({ stage, picks, setsView, act, isGrid }) {
  let side = 1;
  let isZoomed = false;

  /** Read once a resize, never on the key path. */
  function measure() {
    const found = arrange(Number(stage.dataset.count || 1), { width: stage.clientWidth, height: stage.clientHeight });
    stage.dataset.columns = found.columns;
    side = found.side;
  }

  function fit(picture) {
    const [width, height] = sizeOf(picture, side);
    if (picture.width !== width) picture.width = width;
    if (picture.height !== height) picture.height = height;
  }

  function buildFrame(picture, index, count) {
    const frame = build("div", "rate__frame");
    picture.alt = count > 1 ? `Sticker ${index + 1}` : "The sticker";
    frame.append(picture);
    if (picks) {
      frame.dataset.value = String(index + 1);
      frame.addEventListener("click", () => act({ type: "answer", question: picks.name, value: frame.dataset.value }));
    }
    if (picks || count > 2) frame.append(build("span", "rate__number", String(index + 1)));
    return frame;
  }

  function show(item, pictures) {
    const count = String(pictures.length);
    if (stage.dataset.count !== count) {
      stage.dataset.count = count;
      measure();
    }
    for (const picture of pictures) fit(picture);
    // Two versions may draw the very same picture, which is loaded once and cannot stand in two places.
    const placed = pictures.map((picture, index) => (pictures.indexOf(picture) < index ? picture.cloneNode() : picture));
    stage.replaceChildren(...(setsView ? setsView.build(item, placed) : placed.map((picture, index) => buildFrame(picture, index, placed.length))));
  }

  function setPicked(draft) {
    if (!picks) return;
    for (const frame of stage.querySelectorAll("[data-value]")) frame.toggleAttribute("data-picked", readPicks(draft[picks.name]).includes(frame.dataset.value));
  }

  function setZoom(on) {
    if (isZoomed === on) return;
    isZoomed = on;
    stage.toggleAttribute("data-zoom", on);
    if (!isGrid) announce(on ? "Zoomed. The arrow keys move the picture." : "No longer zoomed.");
  }

  /** Where the glass is, in percent of the picture, moved by an arrow. Returns whether it is there to be moved. */
  function pan(key) {
    if (isGrid || !isZoomed || !(key in ARROWS)) return false;
    const [x, y] = ARROWS[key];
    for (const [name, step] of [["--x", x], ["--y", y]]) {
      const at = parseFloat(stage.style.getPropertyValue(name)) || (stage.style.getPropertyValue(name) ? 0 : 50);
      stage.style.setProperty(name, `${Math.max(0, Math.min(100, at + 10 * step))}%`);
    }
    return true;
  }

  stage.addEventListener("pointermove", (event) => {
    if (!isZoomed) return;
    const box = stage.getBoundingClientRect();
    stage.style.setProperty("--x", `${((event.clientX - box.left) / box.width) * 100}%`);
    stage.style.setProperty("--y", `${((event.clientY - box.top) / box.height) * 100}%`);
  });
  measure();
  new ResizeObserver(() => {
    measure();
    for (const picture of stage.querySelectorAll("img")) fit(picture);
  }).observe(stage);

  return { show, clear: () => stage.replaceChildren(), setPicked, setZoom, isZoomed: () => isZoomed, pan };
}
