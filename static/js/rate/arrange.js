// How pictures are laid out, and how large. Pure.

const GAP = 8;
const FRAME = 16; // Of each picture, both sides together.
const MOST_COLUMNS = 5;

/** The number of columns with which so many pictures are largest, and their side, in px. Of two the first stays at the left. */
export function arrange(count, { width, height }) {
  const layouts = Array.from({ length: Math.min(count, MOST_COLUMNS) }, (_, index) => {
    const columns = index + 1;
    const rows = Math.ceil(count / columns);
    return { columns, side: Math.min((width - GAP * (columns - 1)) / columns, (height - GAP * (rows - 1)) / rows) - FRAME };
  });
  const wide = layouts.filter(({ columns }) => count !== 2 || columns === 2);
  const best = wide.reduce((found, each) => (each.side > found.side ? each : found));
  return { columns: best.columns, side: Math.max(48, best.side) };
}

/** As large as it stays crisp: small pictures grow by whole steps, large ones fill the stage. Returns [width, height]. */
export function sizeOf({ naturalWidth, naturalHeight }, side) {
  const natural = Math.max(naturalWidth, naturalHeight, 1);
  const longest = Math.round(Math.min(side, natural <= 128 ? natural * 6 : natural * 2));
  const ratio = naturalWidth / Math.max(1, naturalHeight);
  return ratio >= 1 ? [longest, Math.round(longest / ratio)] : [Math.round(longest * ratio), longest];
}
