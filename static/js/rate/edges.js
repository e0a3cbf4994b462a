// What the transparency of a sticker hides from the eye: soft edges (halos) and holes within the figure. Pure.

const CLEAR = 8; // Alpha below this is as good as nothing, and above 255 minus this as good as solid.
const HALF = 128;
const SMALLEST_HOLE = 4; // Pixels; less is noise.
const SOFT_COLOUR = [255, 0, 200, 255];
const HOLE_COLOUR = [255, 140, 0, 255];

/** Marks what is transparent and connected with the border by its sides: what lies around the figure. */
function floodFromBorder(clear, width, height) {
  const outside = new Uint8Array(width * height);
  const stack = [];
  const visit = (index) => {
    if (!clear[index] || outside[index]) return;
    outside[index] = 1;
    stack.push(index);
  };
  for (let x = 0; x < width; x += 1) {
    visit(x);
    visit((height - 1) * width + x);
  }
  for (let y = 0; y < height; y += 1) {
    visit(y * width);
    visit(y * width + width - 1);
  }
  while (stack.length) visitNeighbours(stack.pop(), width, height, visit);
  return outside;
}

function visitNeighbours(index, width, height, visit) {
  const x = index % width;
  if (x > 0) visit(index - 1);
  if (x < width - 1) visit(index + 1);
  if (index >= width) visit(index - width);
  if (index < width * (height - 1)) visit(index + width);
}

/** Transparent regions that the figure encloses: a list of lists of pixel indices, the largest first. */
function findHoles(clear, outside, width, height) {
  const seen = Uint8Array.from(outside);
  const holes = [];
  for (let start = 0; start < clear.length; start += 1) {
    if (!clear[start] || seen[start]) continue;
    const hole = [];
    const stack = [start];
    seen[start] = 1;
    while (stack.length) {
      const index = stack.pop();
      hole.push(index);
      visitNeighbours(index, width, height, (next) => {
        if (!clear[next] || seen[next]) return;
        seen[next] = 1;
        stack.push(next);
      });
    }
    if (hole.length >= SMALLEST_HOLE) holes.push(hole);
  }
  return holes.sort((a, b) => b.length - a.length);
}

/**
 * rgba: bytes of the picture, four a pixel. Returns {paint: bytes of an overlay of the same size, soft: share of the figure's pixels that are
 * half-transparent (0 to 1), holes: share of the picture of each hole, the largest first, isFull: whether nothing is transparent}.
 */
export function findEdges(rgba, width, height) {
  const count = width * height;
  const clear = new Uint8Array(count);
  const paint = new Uint8ClampedArray(count * 4);
  let figure = 0;
  let soft = 0;
  for (let index = 0; index < count; index += 1) {
    const alpha = rgba[index * 4 + 3];
    clear[index] = alpha < HALF ? 1 : 0;
    if (alpha < CLEAR) continue;
    figure += 1;
    if (alpha > 255 - CLEAR) continue;
    soft += 1;
    paint.set(SOFT_COLOUR, index * 4);
  }
  const holes = findHoles(clear, floodFromBorder(clear, width, height), width, height);
  for (const hole of holes) for (const index of hole) paint.set(HOLE_COLOUR, index * 4);
  return { paint, soft: figure ? soft / figure : 0, holes: holes.map((hole) => hole.length / count), isFull: figure === count && soft === 0 };
}

function percent(share) {
  const value = share * 100;
  return `${value > 0 && value < 0.1 ? "under 0.1" : value.toFixed(1)}%`;
}

/** What the overlay shows, in words. */
export function describeEdges({ soft, holes, isFull }) {
  if (isFull) return "Nothing is transparent: the picture fills its whole square.";
  const edge = `${percent(soft)} of the sticker is half-transparent`;
  if (!holes.length) return `${edge}, no holes.`;
  if (holes.length === 1) return `${edge}, one hole of ${percent(holes[0])} of the picture.`;
  return `${edge}, ${holes.length} holes, the largest ${percent(holes[0])} of the picture.`;
}
