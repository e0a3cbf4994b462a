// What waits for the paint of what a key has brought. Pure, but for the browser's frames.

const LATEST = 250; // A tab in the background paints no frame, in ms.

/** Runs `work` once, after the next paint. */
function afterPaint(work) {
  let isDone = false;

  function run() {
    if (isDone) return;
    isDone = true;
    clearTimeout(fallback);
    work();
  }

  const fallback = setTimeout(run, LATEST);
  requestAnimationFrame(() => setTimeout(run));
}

/** work(words) is called once for all that asked for it before a paint, with the last words that were given. Returns plan(words). */
export function planAfterPaint(work) {
  let planned = null;

  return (words) => {
    if (planned) {
      planned.words = words ?? planned.words;
      return;
    }
    planned = { words };
    afterPaint(() => {
      const { words: last } = planned;
      planned = null;
      work(last);
    });
  };
}
