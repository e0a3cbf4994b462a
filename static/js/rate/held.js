// What a rater has in hand of a campaign, kept in this browser, so that a page that was opened without a connection can go on with it. Pure: the
// store is given.

const DAY = 24 * 3600 * 1000;

/**
 * store: the outbox's. What is held belongs to one person and goes when they sign out. schedule(fn, ms) -> cancel(); pause: how long a change may
 * wait for others, in ms, since all that is held is written at once.
 */
export function createHeld({ user, store, campaign = "", pause = 1000, now = () => Date.now(), schedule = plan }) {
  const owner = `held-${user}`;
  const id = `${owner}-${campaign}`;
  let cancel = null;
  let pending = null;

  function write() {
    cancel?.();
    cancel = null;
    const read = pending;
    pending = null;
    // Without storage it lasts as long as the page.
    return read ? store.put({ id, user: owner, seq: now(), ...read() }).catch(() => {}) : Promise.resolve();
  }

  return {
    /** Something has changed: `read` -> {items, progress} is written, at once where it must not be missed. */
    note(read, atOnce = false) {
      pending = read;
      if (atOnce) return write();
      cancel ??= schedule(write, pause);
      return undefined;
    },
    /** The page may be gone in a moment. */
    flush: write,
    /** {items, progress} of an earlier visit, without items whose lease has run out: others may have them by now. Null where there is none. */
    async read() {
      const rows = await store.all(owner).catch(() => []);
      const old = rows.filter((row) => row.seq <= now() - DAY).map((row) => row.id);
      if (old.length) await store.remove(old).catch(() => {});
      const row = rows.find((one) => one.id === id && !old.includes(id));
      const items = row?.items.filter((item) => !item.expiresAt || item.expiresAt > now()) ?? [];
      return items.length ? { items, progress: row.progress } : null;
    },
  };
}

function plan(work, ms) {
  const timer = setTimeout(work, ms);
  return () => clearTimeout(timer);
}
