// Judgments on their way to the server. A row leaves only when the server has acknowledged its id. Pure: storage, network, lock and timers are given.

const FIRST_WAIT = 1000;
const LONGEST_WAIT = 60000;
const BATCH = 50;

/** The pause before attempt n + 1 (n >= 1), in ms: doubling, with full jitter above a quarter, so that many raters do not knock together. */
export function backOff(failures, random = Math.random) {
  const top = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (failures - 1));
  return Math.round(top * (0.25 + 0.75 * random()));
}

/**
 * store: {all(user) -> rows, put(row), remove(ids)}, all promises. send(judgments) -> {ok, status, results?, isRefusal?, isRoleLost?, retryAfter?: s}; a network failure rejects.
 * lock(work) runs `work` unless another tab is at it. schedule(fn, ms) -> cancel(). onChange() after every change;
 * onSettled(row, result) for each row that the server has decided about.
 */
export function createOutbox({ user, campaign = null, store, send, lock = (work) => work(), now = () => Date.now(), random = Math.random, schedule = plan, onChange = () => {}, onSettled = () => {} }) {
  const rows = new Map(); // id -> {id, user, campaign, seq, judgment, about, state: "waiting" | "rejected", reason}
  const writes = new Map(); // id -> promise of its put, while that is under way.
  let lastSeq = 0;
  let failures = 0;
  let problem = null; // null | "offline" | "server" | "signed-out" | "no-role"
  let kept = "browser"; // "tab" once the browser's storage has refused a row.
  let batch = BATCH;
  let sending = false;
  let cancelTimer = null;

  const sorted = () => [...rows.values()].sort((a, b) => a.seq - b.seq);
  const waiting = () => sorted().filter((row) => row.state === "waiting");
  const snapshot = () => ({ waiting: waiting().length, rejected: sorted().filter((row) => row.state === "rejected"), sending, problem, kept });
  const changed = () => onChange();

  function write(row) {
    const done = Promise.resolve()
      .then(() => store.put({ ...row, loose: undefined }))
      .then(() => keepAgain(row))
      .catch(() => {
        kept = "tab";
        row.loose = true;
        changed();
      })
      .finally(() => writes.get(row.id) === done && writes.delete(row.id));
    writes.set(row.id, done);
    return done;
  }

  /** The storage takes rows, this one at least: those that it refused before are offered to it again. */
  function keepAgain(row) {
    if (kept === "browser") return;
    delete row.loose;
    const loose = [...rows.values()].filter((other) => other.loose);
    if (!loose.length) {
      kept = "browser";
      changed();
    }
    for (const other of loose) if (!writes.has(other.id)) write(other);
  }

  async function remove(ids) {
    await Promise.all(ids.map((id) => writes.get(id)));
    for (const id of ids) rows.delete(id);
    await store.remove(ids).catch(() => {}); // A row that stays is sent again, and the server calls it a duplicate.
  }

  /** Takes in what other tabs and earlier visits left, and lets go of what another tab has delivered. */
  async function sync() {
    const known = new Map([...rows].filter(([id, row]) => !writes.has(id) && !row.loose));
    let stored;
    try {
      stored = await store.all(user);
    } catch {
      kept = "tab";
      return;
    }
    const present = new Set(stored.map((row) => row.id));
    for (const id of known.keys()) if (!present.has(id)) rows.delete(id);
    for (const row of stored) if (!rows.has(row.id) || rows.get(row.id).state !== row.state) rows.set(row.id, row);
    lastSeq = Math.max(lastSeq, ...stored.map((row) => row.seq));
  }

  function later(ms) {
    cancelTimer?.();
    cancelTimer = schedule(() => {
      cancelTimer = null;
      return flush();
    }, ms);
  }

  function noteFailure(kind, ms) {
    failures += 1;
    problem = kind;
    later(ms ?? backOff(failures, random));
  }

  /** Returns whether the answer names any of what was sent. */
  async function settle(sent, results) {
    const answers = new Map(results.map((result) => [String(result.id), result]));
    const gone = [];
    for (const row of sent) {
      const result = answers.get(row.id);
      if (!result) continue; // Not acknowledged: it stays.
      if (result.status === "rejected") {
        row.state = "rejected";
        row.reason = result.reason || "The server did not say why.";
        await write(row);
      } else {
        gone.push(row.id);
      }
      onSettled(row, result);
    }
    if (gone.length) await remove(gone);
    return sent.some((row) => answers.has(row.id));
  }

  /** One batch. Returns whether to go on at once. */
  async function sendBatch() {
    const sent = waiting().slice(0, batch);
    if (!sent.length) {
      // All of them are delivered, some by another tab perhaps: nothing is known to be wrong any more, with batches of any size.
      batch = BATCH;
      failures = 0;
      problem = null;
      return false;
    }
    let answer;
    try {
      answer = await send(sent.map((row) => row.judgment));
    } catch {
      noteFailure("offline");
      // Nothing tells a connection that is away from something on the way that takes no body of this size.
      if (failures > 1) batch = Math.max(1, Math.floor(sent.length / 2));
      return false;
    }
    if (answer.ok && Array.isArray(answer.results)) {
      const moved = await settle(sent, answer.results);
      if (moved) {
        failures = 0;
        problem = null;
      } else {
        noteFailure("server"); // An answer that names none of them.
      }
      changed();
      return moved;
    }
    if (answer.isRoleLost) {
      noteFailure("no-role", LONGEST_WAIT); // Nothing that is done here changes it.
    } else if (answer.status === 401 || answer.status === 403) {
      noteFailure("signed-out", 15000);
    } else if ([400, 409, 413, 422].includes(answer.status) && sent.length > 1) {
      // One row spoils the batch: halve it until that row stands alone, then show it with what the server said.
      batch = Math.max(1, Math.floor(sent.length / 2));
      return true;
    } else if ([400, 409, 413, 422].includes(answer.status) && answer.isRefusal) {
      await settle(sent, [{ id: sent[0].id, status: "rejected", reason: answer.reason || "The server could not read this judgment." }]);
      batch = BATCH;
      failures = 0;
      problem = null;
      changed();
      return true;
    } else {
      // Also a refusal in other words than the server's own: something on the way to it said that.
      noteFailure("server", answer.retryAfter ? answer.retryAfter * 1000 : undefined);
    }
    return false;
  }

  async function flush() {
    if (sending) return;
    cancelTimer?.();
    cancelTimer = null;
    sending = true;
    try {
      await lock(async () => {
        await sync();
        changed();
        while (await sendBatch());
      });
    } finally {
      sending = false;
      changed();
      if (!cancelTimer && waiting().length) later(problem ? backOff(Math.max(1, failures), random) : FIRST_WAIT);
    }
  }

  return {
    snapshot,
    flush,
    /** On the key path: memory at once, the browser's storage and the network afterwards. `about` names the judgment for a person. */
    add(judgment, about = "") {
      lastSeq = Math.max(lastSeq + 1, now() * 1000);
      const row = { id: judgment.id, user, campaign, seq: lastSeq, judgment, about, state: "waiting", reason: null };
      rows.set(row.id, row);
      write(row);
      if (!sending && !(problem && cancelTimer)) later(150);
      changed();
    },
    /** Reads what earlier visits left. */
    async open() {
      await sync();
      changed();
    },
    /** Assignments whose last row is not an undo and has not arrived: they must not be shown again. */
    pendingAssignments() {
      const last = new Map();
      for (const row of waiting()) last.set(row.judgment.assignment, row.judgment.action);
      return new Set([...last].filter(([, action]) => action !== "undo").map(([assignment]) => assignment));
    },
    /** What stands of this campaign once everything has arrived: of each assignment the last judgment, if that is no undo. */
    unsentJudgments() {
      const last = new Map();
      for (const row of waiting()) if (row.campaign === campaign) last.set(row.judgment.assignment, row.judgment);
      return [...last.values()].filter(({ action }) => action !== "undo");
    },
    /** Assignments of which anything has not arrived: the server does not know yet how they stand. */
    unsentAssignments: () => new Set(waiting().map((row) => row.judgment.assignment)),
    /** Where the chain of each assignment of which something has not arrived will end: assignment -> id. */
    chainEnds: () => new Map(waiting().map(({ judgment }) => [judgment.assignment, judgment.id])),
    /** A person has read why this one was refused. */
    async dismiss(id) {
      if (rows.get(id)?.state !== "rejected") return;
      await remove([id]);
      changed();
    },
    /** Sends this one again: what it was refused for may be over. Returns its row, if it was refused. */
    async resend(id) {
      const row = rows.get(id);
      if (row?.state !== "rejected") return null;
      Object.assign(row, { state: "waiting", reason: null });
      await write(row);
      changed();
      later(0);
      return row;
    },
    /** Tries at once: the connection is back, or somebody has signed in again. */
    retry() {
      failures = 0;
      batch = BATCH;
      later(0);
    },
    settled: () => Promise.all(writes.values()),
  };
}

function plan(work, ms) {
  const timer = setTimeout(work, ms);
  return () => clearTimeout(timer);
}

/** The same promises in memory: for browsers without storage, and for tests. */
export function createMemoryStore() {
  const kept = new Map();
  return {
    all: async (user) => [...kept.values()].filter((row) => row.user === user).map((row) => structuredClone(row)),
    others: async (beginning, user) => [...kept.values()].filter((row) => row.user.startsWith(beginning) && row.user !== user).map((row) => row.id),
    put: async (row) => void kept.set(row.id, structuredClone(row)),
    remove: async (ids) => ids.forEach((id) => kept.delete(id)),
  };
}
