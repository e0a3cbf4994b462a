// What rating leaves in this browser beside unsent judgments: the last judgments, what was in hand, pages and pictures. It is one person's, and goes
// when they sign out or another person comes. Unsent judgments stay: they are work.

const KINDS = ["judged-", "held-"];
const STORES = "atelier-rating-"; // As the worker names them.

/** Of everybody but this person: whoever signs in finds nothing of whom was here before. */
export async function forgetOthers({ user, store, caches = globalThis.caches }) {
  for (const kind of KINDS) {
    const ids = await store.others(kind, kind + user);
    if (ids.length) await store.remove(ids);
  }
  for (const name of (await caches?.keys()) ?? []) if (name.startsWith(`${STORES}of-`) && !name.startsWith(`${STORES}of-${user}-`)) await caches.delete(name);
}

/** Of everybody, and the worker, too. */
export async function forgetAll({ store, caches = globalThis.caches, workers = globalThis.navigator?.serviceWorker }) {
  const stores = async () => {
    for (const name of (await caches?.keys()) ?? []) if (name.startsWith(STORES)) await caches.delete(name);
  };
  const rows = async () => {
    for (const kind of KINDS) await store.remove(await store.others(kind, ""));
  };
  const worker = async () => (await workers?.getRegistration("/rate/"))?.unregister();
  await Promise.allSettled([rows(), worker().catch(() => {}).then(stores)]);
}
