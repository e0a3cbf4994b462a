// The slider over the drawings of a run. The table of all steps, which is all there is without this module, has the pictures and their words;
// the slider shows of each prompt the picture of the first step and that of the chosen one.

// Kept while the page is: pictures that were asked for stay decoded or in the browser's memory, and the table may be sent anew at any time.
const pictures = new Map();
// The chosen step; null follows the newest. Kept over a reload, which is how the page ends when the run does.
let chosen = history.state?.drawnStep ?? null;
let held = false;

function readRows(section) {
  return [...section.querySelectorAll("tbody tr")].map((row) => ({
    step: Number(row.dataset.step),
    name: row.cells[0].textContent,
    links: [...row.cells].slice(1).map((cell) => cell.querySelector("a")),
  }));
}

// Steps may be thinned out as they become many: then the one that lies nearest stands for the chosen.
function findIndex(rows, step) {
  if (step === null) return rows.length - 1;
  const distances = rows.map((row) => Math.abs(row.step - step));
  return distances.indexOf(Math.min(...distances));
}

function loadPicture(src) {
  if (!pictures.has(src)) {
    const picture = new Image();
    picture.src = src;
    pictures.set(src, picture.decode().then(() => picture, () => pictures.delete(src)));
  }
  return pictures.get(src);
}

function fill(figure, row, column) {
  const [link, blank, caption] = figure.children;
  const source = row.links[column];
  link.hidden = !source;
  blank.hidden = Boolean(source);
  caption.textContent = `step ${row.name}`;
  if (!source) return;
  const from = source.querySelector("img");
  const picture = link.firstElementChild;
  link.href = source.href;
  picture.alt = from.alt;
  if (picture.src === from.src) return;
  picture.src = from.src;
  // The browser shows the one before until this one is there, and that must not pass for it.
  link.toggleAttribute("data-waits", !picture.complete);
  picture.onload = picture.onerror = () => link.removeAttribute("data-waits");
}

// The nearest first, a step at a time, so that the slider is ahead of the network wherever it goes.
async function loadAll(section, rows, slider) {
  const waiting = new Set(rows);
  while (waiting.size > 0 && section.isConnected) {
    const at = Number(slider.value);
    const next = [...waiting].reduce((best, row) => (Math.abs(rows.indexOf(row) - at) < Math.abs(rows.indexOf(best) - at) ? row : best));
    waiting.delete(next);
    await Promise.all(next.links.map((link) => link && loadPicture(link.querySelector("img").src)));
  }
}

function start(section) {
  const box = section.querySelector("[data-drawings]");
  if (!box?.hidden) return;
  const slider = box.querySelector("input");
  const said = box.querySelector("output");
  const pairs = [...box.querySelectorAll(".pair")];
  const rows = readRows(section);
  const show = () => {
    const row = rows[Number(slider.value)];
    said.textContent = row.step;
    slider.setAttribute("aria-valuetext", row.name);
    pairs.forEach((pair, column) => fill(pair.children[1], row, column));
  };
  slider.value = findIndex(rows, chosen);
  pairs.forEach((pair, column) => fill(pair.children[0], rows[0], column));
  show();
  slider.addEventListener("input", () => {
    const index = Number(slider.value);
    chosen = index === rows.length - 1 ? null : rows[index].step;
    show();
  });
  slider.addEventListener("change", () => history.replaceState({ ...history.state, drawnStep: chosen }, ""));
  box.hidden = false;
  section.querySelector("details").open = false;
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    loadAll(section, rows, slider);
  }, { rootMargin: "50%" }).observe(box);
}

function startAll() {
  const section = document.getElementById("run-samples");
  if (section) start(section);
}

startAll();
// Before app.js hears of it, which gives back what was unfolded and where the focus was.
document.addEventListener("htmx:afterSwap", startAll, true);

// A slider that is just being drawn along is not taken away: what is new comes with the next look.
document.addEventListener("pointerdown", (event) => { held = event.target.matches?.("[data-drawings] input") ?? false; });
for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => { held = false; });
document.addEventListener("htmx:beforeSwap", ({ detail }) => { if (held && detail.target.id === "run-samples") detail.shouldSwap = false; });
