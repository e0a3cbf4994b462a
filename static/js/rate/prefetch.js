// Loads pictures before they are wanted, and decodes those that come next. Pure: how to load and decode is given by whoever knows the DOM.

/**
 * options: load(url) -> promise of a decoded picture; fetch(url) -> promise of one that is there but not decoded yet, for which others may wait,
 * and decode(picture) -> promise of it decoded; keep (how many pictures stay after they were wanted), tries, abreast (how many are fetched at once
 * of those that come late), pause (ms after one of these failed), wait(ms) -> promise. onChange() after each picture that came.
 */
export function createPrefetch({ load, fetch = load, decode = async (picture) => picture, keep = 48, tries = 4, abreast = 2, pause = 5000, wait = (ms) => new Promise((done) => setTimeout(done, ms)), onChange = () => {} }) {
  // url -> {state: "fetching" | "fetched" | "loading" | "ready" | "failed", picture, fetched: promise of a picture or null, promise of a decoded one}; the
  // order is that of last use.
  const entries = new Map();
  let far = []; // What is still to be fetched, in order.
  const missed = new Set(); // What could not be fetched is tried again after all others, so that it holds none up.
  let fetching = 0;
  let pausing = false;

  async function attempt(url, entry) {
    const fetched = entry.fetched ? await entry.fetched : null;
    for (let count = 1; ; count += 1) {
      try {
        entry.picture = await (fetched && count === 1 ? decode(fetched) : load(url));
        entry.state = "ready";
        missed.delete(url);
        onChange();
        return entry.picture;
      } catch (error) {
        if (count >= tries || entries.get(url) !== entry) {
          entry.state = "failed";
          throw error;
        }
        await wait(300 * 3 ** (count - 1));
      }
    }
  }

  function start(url) {
    const before = entries.get(url);
    const entry = { state: "loading", picture: null, fetched: before?.state.startsWith("fetch") ? before.fetched : null, promise: null };
    entries.set(url, entry);
    entry.promise = attempt(url, entry);
    entry.promise.catch(() => {}); // Read through `ready`; nobody may be waiting yet.
    return entry;
  }

  async function fetchOne(url) {
    const entry = { state: "fetching", picture: null, fetched: null, promise: null };
    entries.set(url, entry);
    fetching += 1;
    entry.fetched = fetch(url).catch(() => null);
    const picture = await entry.fetched;
    fetching -= 1;
    const isFar = entries.get(url) === entry;
    if (picture) {
      entry.state = "fetched";
      missed.delete(url);
      if (isFar) onChange();
    } else {
      if (isFar) {
        entries.delete(url); // Once it comes next it is loaded as those are.
        missed.add(url);
        far.push(url);
      }
      if (!pausing) {
        pausing = true;
        wait(pause).then(() => {
          pausing = false;
          fetchFar();
        });
      }
    }
    fetchFar();
  }

  function fetchFar() {
    while (!pausing && fetching < abreast && far.length) {
      const url = far.shift();
      if (!entries.has(url)) fetchOne(url);
    }
  }

  function touch(url) {
    const entry = entries.get(url);
    if (!entry) return null;
    entries.delete(url);
    entries.set(url, entry);
    return entry;
  }

  const urlsOf = (item) => item.images.map((image) => image.url);
  const isFar = (entry) => !entry || entry.state.startsWith("fetch");
  const isHere = (entry) => entry?.state === "ready" || entry?.state === "fetched" || false;

  return {
    /**
     * Sees to it that the pictures of the first `near` items are decoded, the first ones first, and those of the others fetched when that holds
     * nothing up; lets go of the oldest that nobody wants.
     */
    want(items, near = items.length) {
      const wanted = new Set(items.flatMap(urlsOf));
      const soon = new Set(items.slice(0, near).flatMap(urlsOf));
      for (const url of wanted) {
        const entry = touch(url);
        if (soon.has(url) && isFar(entry)) start(url);
      }
      for (const url of [...missed]) if (!wanted.has(url)) missed.delete(url);
      const missing = [...wanted].filter((url) => !soon.has(url) && !entries.has(url));
      far = [...missing.filter((url) => !missed.has(url)), ...missing.filter((url) => missed.has(url))];
      fetchFar();
      const others = [...entries.keys()].filter((url) => !wanted.has(url));
      for (const url of others.slice(0, Math.max(0, others.length - keep))) entries.delete(url);
    },
    /** The decoded pictures of an item, or null while one of them is missing. */
    pictures(item) {
      const found = urlsOf(item).map((url) => entries.get(url));
      return found.every((entry) => entry?.state === "ready") ? found.map((entry) => entry.picture) : null;
    },
    /** Whether it can be shown without a connection. */
    isHere: (url) => isHere(entries.get(url)),
    /** How many of these items, from the first on, can be shown without a connection. */
    countHere(items) {
      const missing = items.findIndex((item) => !urlsOf(item).every((url) => isHere(entries.get(url))));
      return missing < 0 ? items.length : missing;
    },
    /** Waits for an item's pictures; rejects when one cannot be had. A picture that failed before is tried anew. */
    ready(item) {
      return Promise.all(urlsOf(item).map((url) => {
        const entry = entries.get(url);
        return (isFar(entry) || entry.state === "failed" ? start(url) : entry).promise;
      }));
    },
    size: () => entries.size,
  };
}
