// Turns series of [x, y] points, each with its own x, into uPlot's table: one sorted list of x, and a list of y (or null) for each series.
// With a logarithmic axis what is not above zero has no place on it and becomes a gap.
export function alignSeries({ series, log = false }) {
  const xs = [...new Set(series.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b);
  const index = new Map(xs.map((x, i) => [x, i]));
  const columns = series.map((line) => {
    const column = new Array(xs.length).fill(null);
    for (const [x, y] of line.points) {
      if (y !== null && Number.isFinite(y) && !(log && y <= 0)) column[index.get(x)] = y;
    }
    return column;
  });
  return [xs, ...columns];
}

// What a reader has after an answer. A partial one replaces each of its series from a step on; null where it has a series that the
// reader has not: its place among the others is in the whole answer.
export function mergeAnswer(known, answer) {
  if (!answer.partial) return answer;
  const labels = new Set((known?.series ?? []).map((line) => line.label));
  if (!answer.series.every((line) => labels.has(line.label))) return null;
  const changed = new Map(answer.series.map((line) => [line.label, line]));
  const series = known.series.map((line) => {
    const newer = changed.get(line.label);
    return newer ? { label: line.label, points: [...line.points.filter(([x]) => x < newer.from), ...newer.points] } : line;
  });
  return { ...answer, series };
}
