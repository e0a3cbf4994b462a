// The part of the view that shows a sticker as it will be seen, and what its transparency hides. All of it comes after the paint.
import { build } from "./dom.js";
import { describeEdges, findEdges } from "./edges.js";

const SIZES = [96, 128, 160, 240, 0]; // CSS pixels; 0 is off.
const BESIDE = 2; // More copies than these lie below the pictures, with their numbers.

/** Reads a picture's bytes. Throws where the browser does not let them be read. */
function readPicture(picture) {
  const canvas = build("canvas");
  canvas.width = picture.naturalWidth;
  canvas.height = picture.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function buildOverlay(found, width, height) {
  const canvas = build("canvas", "rate__edges");
  canvas.width = width;
  canvas.height = height;
  canvas.setAttribute("aria-hidden", "true");
  canvas.getContext("2d").putImageData(new ImageData(found.paint, width, height), 0, 0);
  return canvas;
}

/** remember(name, value?) keeps a preference; announce(text) says something to those who do not see it; usual: the size where nothing is kept. */
export function createStickerView({ stage, remember, announce, usual = matchMedia("(min-width: 60rem)").matches ? 128 : 0 }) {
  const copies = document.getElementById("rate-real");
  const legend = document.getElementById("rate-legend");
  const found = new WeakMap(); // Picture -> what its transparency hides, or null where it cannot be read.
  let size = SIZES.includes(Number(remember("size") ?? NaN)) ? Number(remember("size")) : usual;
  let edges = false;
  let planned = false;

  const pictures = () => [...stage.querySelectorAll(".rate__frame > img")];

  /** On the key path: nothing old stays beside the new picture. */
  function clear() {
    copies.replaceChildren();
    legend.hidden = true;
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => setTimeout(() => {
      planned = false;
      paint();
    }));
  }

  function paint() {
    paintCopies();
    paintEdges();
  }

  /** Below the pictures they may be more than there is room for, and are scrolled to. */
  function layOut(count) {
    const isBelow = count > BESIDE;
    copies.toggleAttribute("data-below", isBelow);
    // Their room stays while one item follows another.
    copies.style.setProperty("--real", `${size}px`);
    copies.setAttribute("aria-hidden", String(!isBelow));
    if (!isBelow) {
      for (const name of ["tabindex", "role", "aria-label"]) copies.removeAttribute(name);
      return;
    }
    copies.tabIndex = 0;
    copies.setAttribute("role", "group");
    copies.setAttribute("aria-label", `At ${size} pixels`);
  }

  function paintCopies() {
    copies.hidden = size === 0;
    document.getElementById("rate-size-name").textContent = size ? `${size} px` : "off";
    const shown = pictures();
    if (!size) {
      copies.replaceChildren();
      return;
    }
    layOut(shown.length);
    copies.replaceChildren(...shown.map((picture, index) => {
      const frame = build("div", "rate__copy");
      const copy = new Image();
      copy.decoding = "sync";
      copy.alt = "";
      copy.src = picture.src;
      const ratio = picture.naturalWidth / Math.max(1, picture.naturalHeight);
      copy.width = ratio >= 1 ? size : Math.round(size * ratio);
      copy.height = ratio >= 1 ? Math.round(size / ratio) : size;
      frame.append(copy);
      if (shown.length > BESIDE) frame.append(build("span", "rate__number", String(index + 1)));
      return frame;
    }));
  }

  function look(picture) {
    if (!found.has(picture)) {
      try {
        const image = readPicture(picture);
        found.set(picture, findEdges(image.data, image.width, image.height));
      } catch {
        found.set(picture, null);
      }
    }
    return found.get(picture);
  }

  function paintEdges() {
    for (const old of stage.querySelectorAll(".rate__edges")) old.remove();
    const shown = edges ? pictures() : [];
    const said = shown.map((picture, index) => {
      const result = look(picture);
      if (result) picture.after(buildOverlay(result, picture.naturalWidth, picture.naturalHeight));
      const words = result ? describeEdges(result) : "The browser does not let its transparency be read.";
      return shown.length > 1 ? `Sticker ${index + 1}: ${words}` : words;
    });
    legend.hidden = said.length === 0;
    document.getElementById("rate-legend-said").textContent = said.join(" ");
    return said.join(" ");
  }

  copies.hidden = size === 0;
  return {
    clear,
    nextSize() {
      size = SIZES[(SIZES.indexOf(size) + 1) % SIZES.length];
      remember("size", String(size));
      paintCopies();
      announce(size ? `Real size: ${size} pixels` : "Real size: off");
    },
    toggleEdges() {
      edges = !edges;
      const said = paintEdges();
      for (const button of document.querySelectorAll('[data-command="edges"]')) button.setAttribute("aria-pressed", String(edges));
      announce(edges ? said : "Soft edges and holes are no longer shown.");
    },
  };
}
