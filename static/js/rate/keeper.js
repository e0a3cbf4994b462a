// Tells the service worker what a rating page has in hand, so that the page opens without a connection. Pure: the browser's part is given.

const PAUSE = 3000; // Pictures come by the dozen, and what they are for comes first.
const TRIES = 3;

/**
 * config: {user_id, files, worker_url}. pictures() -> addresses of those that are here, the first ones first. workers: the browser's
 * ServiceWorkerContainer; undefined where it has none, as it has outside https and localhost.
 */
export function createKeeper({ config, page, pictures, workers = globalThis.navigator?.serviceWorker, schedule = (work, ms) => setTimeout(work, ms) }) {
  let timer = null;
  let told = null; // The pictures that the worker knows of.
  let registration = null;
  let failures = 0;

  function tell() {
    const { installing, waiting, active } = registration;
    // Only the one of this page's version minds; which of them that is, is its own to know.
    for (const worker of [installing, waiting, active]) worker?.postMessage({ files: config.files, user: String(config.user_id), page, pictures: [...told] });
  }

  async function look() {
    timer = null;
    const here = pictures();
    if (told && here.every((address) => told.has(address))) return; // What has left goes along with the next that comes.
    told = new Set(here);
    try {
      if (!registration) {
        registration = await workers.register(config.worker_url, { scope: "/rate/", updateViaCache: "none" });
        registration.addEventListener("updatefound", tell);
      }
      tell();
    } catch {
      told = null;
      failures += 1; // As where the browser forbids it, or the connection is gone: the page works without.
    }
  }

  return {
    /** Something may have changed. Never on the key path: it is looked at a while later. */
    note() {
      if (workers && failures < TRIES) timer ??= schedule(look, PAUSE);
    },
  };
}
