// Loads and decodes pictures before they are wanted. Pure: `load(url)` -> promise of a decoded picture is given by whoever knows the DOM.

/** options: load, keep (how many decoded pictures stay after they were wanted), tries, wait(ms) -> promise. */
export function createPrefetch({ load, keep = 48, tries = 4, wait = (ms) => new Promise((done) => setTimeout(done, ms)) }) {
  const entries = new Map(); // url -> {state: "loading" | "ready" | "failed", picture, promise}; the order is that of last use.

  async function attempt(url, entry) {
    for (let count = 1; ; count += 1) {
      try {
        entry.picture = await load(url);
        entry.state = "ready";
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
    const entry = { state: "loading", picture: null, promise: null };
    entries.set(url, entry);
    entry.promise = attempt(url, entry);
    entry.promise.catch(() => {}); // Read through `ready`; nobody may be waiting yet.
    return entry;
  }

  function touch(url) {
    const entry = entries.get(url);
    if (!entry) return null;
    entries.delete(url);
    entries.set(url, entry);
    return entry;
  }

  const urlsOf = (item) => item.images.map((image) => image.url);

  return {
    /** Sees to it that these items' pictures are decoded, the first ones first, and lets go of the oldest others. */
    want(items) {
      const wanted = new Set(items.flatMap(urlsOf));
      for (const url of wanted) if (!touch(url)) start(url);
      for (const url of [...entries.keys()]) {
        if (entries.size <= Math.max(keep, wanted.size)) break;
        if (!wanted.has(url)) entries.delete(url);
      }
    },
    /** The decoded pictures of an item, or null while one of them is missing. */
    pictures(item) {
      const found = urlsOf(item).map((url) => entries.get(url));
      return found.every((entry) => entry?.state === "ready") ? found.map((entry) => entry.picture) : null;
    },
    /** Waits for an item's pictures; rejects when one cannot be had. A picture that failed before is tried anew. */
    ready(item) {
      return Promise.all(urlsOf(item).map((url) => {
        const entry = entries.get(url);
        return (!entry || entry.state === "failed" ? start(url) : entry).promise;
      }));
    },
    size: () => entries.size,
  };
}
