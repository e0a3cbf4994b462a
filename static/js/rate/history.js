// The last judgments of a campaign, kept in this browser so that they can be undone after the page was opened anew. Pure: the store is given.

const DAY = 24 * 3600 * 1000; // The pictures of older ones can no longer be had.

/**
 * store: as the outbox's, and the same one. limit: how many are kept of this campaign. They belong to one person, as what is unsent does, but go when
 * that person signs out: nobody's work is lost with them.
 */
export function createHistory({ user, store, campaign = "", limit = 20, now = () => Date.now() }) {
  const owner = `judged-${user}`;
  const idOf = (record) => `judged-${record.id}`;
  const kept = []; // Ids, the oldest first.
  let lastSeq = 0;
  // Without storage the history lasts as long as the page.
  const drop = (ids) => (ids.length ? store.remove(ids).catch(() => {}) : undefined);

  return {
    /** What earlier visits left, the newest first: {item, record}. */
    async read() {
      const rows = (await store.all(owner).catch(() => [])).sort((a, b) => b.seq - a.seq);
      const recent = rows.filter((row) => row.campaign === campaign && row.seq > (now() - DAY) * 1000);
      // Two tabs may have judged one item after the other.
      const newest = recent.filter((row, place) => recent.findIndex((other) => other.item.assignment === row.item.assignment) === place).slice(0, limit);
      await drop(rows.filter((row) => row.seq <= (now() - DAY) * 1000 || (row.campaign === campaign && !newest.includes(row))).map((row) => row.id));
      kept.push(...newest.map((row) => row.id).reverse());
      lastSeq = Math.max(lastSeq, ...newest.map((row) => row.seq));
      return newest.map(({ item, record }) => ({ item, record }));
    },
    async add({ item, record }) {
      lastSeq = Math.max(lastSeq + 1, now() * 1000);
      kept.push(idOf(record));
      await store.put({ id: idOf(record), user: owner, seq: lastSeq, campaign, item, record }).catch(() => {});
      await drop(kept.splice(0, kept.length - limit));
    },
    /** It was undone, or never taken. */
    async remove(record) {
      const place = kept.indexOf(idOf(record));
      if (place >= 0) kept.splice(place, 1);
      await drop([idOf(record)]);
    },
  };
}
