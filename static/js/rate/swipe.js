// A finger on the sticker: to the right it passes, to the left it fails. Everything else that a finger does is the browser's: scrolling, zooming.

export const FAR_ENOUGH = 72; // CSS pixels.
const STEEPEST = 0.67; // A finger that goes up or down more than this, for each pixel aside, means no answer.

/** Where one sticker has one question to pass, there is something to swipe. */
export function canSwipe(config) {
  return config.kind === "alignment" && config.questions.filter((question) => question.required !== false).length === 1;
}

/** What a finger's way says: "pass", "fail" or nothing yet. */
export function readSwipe(aside, down) {
  if (Math.abs(aside) <= FAR_ENOUGH || Math.abs(down) > STEEPEST * Math.abs(aside)) return "";
  return aside > 0 ? "pass" : "fail";
}

/** answer(what) gets "pass" or "fail" once a swipe. While isZoomed() a finger moves the glass instead. */
export function wireSwipes({ stage, answer, isZoomed }) {
  let from = null; // {id, x, y, sticker}: the one finger, and what it lies on.

  function move(aside, said) {
    const sticker = stage.firstElementChild;
    sticker?.style.setProperty("translate", aside ? `${aside}px 0` : "");
    stage.dataset.swipe = said;
  }

  function letGo() {
    if (from) move(0, "");
    from = null;
  }

  stage.addEventListener("pointerdown", (event) => {
    const before = from;
    letGo();
    // A second finger begins a pinch, and takes back what the first one began.
    if (event.pointerType === "mouse" || before || !event.isPrimary || isZoomed()) return;
    from = { id: event.pointerId, x: event.clientX, y: event.clientY, sticker: stage.firstElementChild };
  });
  stage.addEventListener("pointermove", (event) => {
    if (event.pointerId !== from?.id) return;
    // What came meanwhile, by a key or from another tab, is not what the finger was put on.
    if (from.sticker !== stage.firstElementChild) letGo();
    else move(event.clientX - from.x, readSwipe(event.clientX - from.x, event.clientY - from.y));
  });
  stage.addEventListener("pointerup", (event) => {
    if (event.pointerId !== from?.id) return;
    const { x, y, sticker } = from;
    letGo();
    const said = readSwipe(event.clientX - x, event.clientY - y);
    if (said && sticker && sticker === stage.firstElementChild) answer(said);
  });
  stage.addEventListener("pointercancel", (event) => event.pointerId === from?.id && letGo());
}
