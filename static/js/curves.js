// Interactive curves. Every [data-curve] is fed from its URL, which answers
// {"series": [{"label", "points": [[x, y], ...]}], "x_label", "y_label", "log", "done"}, and is read again until it is done.
// An answer with "seen" gets it back with the next reading, and may then be "partial": only what came since.
import uPlot from "../vendor/uplot/uPlot.esm.js";
import { alignSeries, mergeAnswer } from "./curve-data.js";

const HEIGHT = 280;

function readColours() {
  // The tokens are light-dark() pairs: only a computed colour says which half is in force.
  const probe = document.createElement("i");
  document.body.append(probe);
  const read = (token) => {
    probe.style.color = `var(--${token})`;
    return getComputedStyle(probe).color;
  };
  const colours = {
    ink: read("ink-2"),
    line: read("line"),
    series: [1, 2, 3, 4, 5, 6].map((n) => read(`series-${n}`)),
  };
  probe.remove();
  return colours;
}

function formatFigure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function describeAxes(data, colours) {
  const common = { stroke: colours.ink, grid: { stroke: colours.line, width: 1 }, ticks: { stroke: colours.line, width: 1 }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
  return [
    { ...common, label: data.x_label ?? "", labelSize: 20 },
    { ...common, label: data.y_label ?? "", labelSize: 20, size: 56, values: (_, ticks) => ticks.map((v) => (v === null ? "" : formatFigure(v))) },
  ];
}

function drawPlot(box, data, log) {
  const colours = readColours();
  const dashes = [[], [6, 4], [2, 3], [10, 3, 2, 3], [], [6, 4]];
  const few = data.series.every((line) => line.points.length < 40);
  return new uPlot(
    {
      width: Math.max(240, box.clientWidth),
      height: HEIGHT,
      cursor: { drag: { x: true, y: false }, points: { size: 7 } },
      scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
      axes: describeAxes(data, colours),
      series: [
        { label: data.x_label || "x", value: (_, v) => formatFigure(v) },
        ...data.series.map((line, index) => ({
          label: line.label,
          stroke: colours.series[index % colours.series.length],
          width: 2,
          dash: dashes[index % dashes.length],
          spanGaps: true,
          points: { show: few, size: 5 },
          value: (_, v) => formatFigure(v),
        })),
      ],
    },
    alignSeries({ ...data, log }),
    box,
  );
}

function startCurve(figure) {
  const box = figure.querySelector(".curve__plot");
  const note = figure.querySelector(".curve__note");
  const seconds = Number(figure.dataset.seconds ?? 3);
  const scale = figure.querySelector(".curve__scale");
  const logBox = scale?.querySelector("input");
  let plot = null;
  let data = null;
  // What the person chose goes before what the chart asks for.
  let chosen = null;
  let shape = "";
  let failures = 0;

  const isLog = () => chosen ?? Boolean(data.log);
  const redraw = () => {
    plot?.destroy();
    plot = drawPlot(box, data, isLog());
  };
  const show = () => {
    const points = data.series.reduce((sum, line) => sum + line.points.length, 0);
    note.textContent = points === 0 ? (data.done ? "There are no points." : "The first points come soon.") : data.done ? "" : "Live. Drag to zoom in, double-click to zoom out.";
    figure.toggleAttribute("data-empty", points === 0);
    if (points === 0) return;
    if (scale?.hidden) {
      scale.hidden = false;
      logBox.checked = isLog();
    }
    const now = JSON.stringify([data.series.map((line) => line.label), data.log, data.x_label, data.y_label]);
    if (!plot || now !== shape) {
      shape = now;
      redraw();
    } else {
      plot.setData(alignSeries({ ...data, log: isLog() }));
    }
  };
  const read = async (seen) => {
    const address = new URL(figure.dataset.curve, document.baseURI);
    if (seen) address.searchParams.set("seen", seen);
    const response = await fetch(address, { headers: { Accept: "application/json" }, credentials: "same-origin" });
    if (!response.ok) throw new Error(String(response.status));
    return response.json();
  };
  const poll = async () => {
    if (!figure.isConnected) return;
    try {
      data = mergeAnswer(data, await read(data?.seen)) ?? (await read(""));
      failures = 0;
      show();
    } catch {
      failures += 1;
      note.textContent = "The points cannot be read right now; trying again.";
    }
    if (!data?.done) setTimeout(poll, seconds * 1000 * Math.min(8, 1 + failures));
  };

  logBox?.addEventListener("change", () => {
    chosen = logBox.checked;
    redraw();
  });
  new ResizeObserver(() => {
    if (plot && Math.abs(plot.width - box.clientWidth) > 1) plot.setSize({ width: Math.max(240, box.clientWidth), height: HEIGHT });
  }).observe(box);
  const recolour = () => plot && redraw();
  document.addEventListener("atelier:theme", recolour);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  poll();
}

function startCurves(root) {
  for (const figure of root.querySelectorAll?.("[data-curve]:not([data-started])") ?? []) {
    figure.dataset.started = "";
    startCurve(figure);
  }
}

startCurves(document);
document.addEventListener("htmx:afterSettle", (event) => startCurves(event.target));
