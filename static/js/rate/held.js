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
    /**
     * {items, progress, isLate} of an earlier visit; null where there is none. Also items whose lease has run out: without a connection there is no
     * other, and the server keeps what comes late. isLate: whether there are such.
     */
    async read() {
      const rows = await store.all(owner).catch(() => []);
      const old = rows.filter((row) => row.seq <= now() - DAY).map((row) => row.id);
      if (old.length) await store.remove(old).catch(() => {});
      const row = rows.find((one) => one.id === id && !old.includes(id));
      if (!row?.items.length) return null;
      return { items: row.items, progress: row.progress, isLate: row.items.some(({ expiresAt }) => expiresAt && expiresAt <= now()) };
    },
  };
}

function plan(work, ms) {
  const timer = setTimeout(work, ms);
  return () => clearTimeout(timer);
}
