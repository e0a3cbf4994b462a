// The outbox's place in the browser: one IndexedDB store for all rows, each with the id of the person whose it is.

function asPromise(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function open(name) {
  const request = indexedDB.open(name, 1);
  request.onupgradeneeded = () => request.result.createObjectStore("rows", { keyPath: "id" }).createIndex("user", "user");
  return asPromise(request);
}

export function createBrowserStore(name = "atelier-outbox") {
  let database = null;
  const forget = () => (database = null);
  const connect = () => (database ??= open(name).then(
    (opened) => {
      opened.onclose = forget;
      return opened;
    },
    (error) => {
      forget();
      throw error;
    },
  ));

  /** A connection may have been closed by the browser, as when the site's data were cleared: then there is a new one. */
  async function begin(mode) {
    const opened = await connect();
    try {
      return opened.transaction("rows", mode);
    } catch {
      forget();
      return (await connect()).transaction("rows", mode);
    }
  }

  async function change(work) {
    const transaction = await begin("readwrite");
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
    work(transaction.objectStore("rows"));
    transaction.commit(); // The page may be gone before the browser would do so by itself.
    await done;
  }

  return {
    /** Ids of the rows whose owners are named with this beginning, without those of one of them. */
    async others(beginning, user) {
      const index = (await begin("readonly")).objectStore("rows").index("user");
      const ranges = [user > beginning && IDBKeyRange.bound(beginning, user, false, true), IDBKeyRange.bound(user > beginning ? user : beginning, `${beginning}\uffff`, user > beginning)];
      return (await Promise.all(ranges.filter(Boolean).map((range) => asPromise(index.getAllKeys(range))))).flat();
    },
    all: async (user) => asPromise((await begin("readonly")).objectStore("rows").index("user").getAll(user)),
    put: (row) => change((rows) => rows.put(row)),
    remove: (ids) => change((rows) => ids.forEach((id) => rows.delete(id))),
  };
}

/** Only one tab of a person sends at a time. Where the browser has no locks, the server's idempotency by id is enough. */
export function createTabLock(name) {
  if (!navigator.locks) return (work) => work();
  return (work) => navigator.locks.request(name, { ifAvailable: true }, (granted) => (granted ? work() : undefined));
}
