// Pictures as the browser loads and decodes them, for `prefetch`.

// A picture that neither comes nor fails would hold up its item.
const PATIENCE = 20000;

function createPicture(url, priority) {
  const picture = new Image();
  picture.decoding = "sync"; // It is decoded by then; the swap must not wait for another turn.
  picture.fetchPriority = priority;
  picture.draggable = false;
  picture.alt = "";
  picture.src = url;
  return picture;
}

/** The picture, once `done` is; one that fails or takes too long is given up. */
async function inTime(picture, done) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`No answer within ${PATIENCE} ms.`)), PATIENCE);
  });
  try {
    await Promise.race([done, late]);
  } catch (error) {
    picture.src = ""; // What is under way is given up.
    throw error;
  } finally {
    clearTimeout(timer);
  }
  return picture;
}

/** Loads and decodes one picture: what `prefetch` calls, as the two after it. */
export function loadPicture(url) {
  const picture = createPicture(url, "high");
  return inTime(picture, picture.decode());
}

/** One that is not next: its bytes are held, which a decoded picture's size is many times of. */
export function fetchPicture(url) {
  const picture = createPicture(url, "low");
  return inTime(picture, new Promise((done, fail) => {
    picture.onload = done;
    picture.onerror = () => fail(new Error("The picture could not be fetched."));
  }));
}

export function decodePicture(picture) {
  return inTime(picture, picture.decode());
}
