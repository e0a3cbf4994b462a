import { createMarks } from "./marks.js";
import { endsPick, togglePick } from "./pick.js";

// What is to be judged, what was, and the rows that say so. Pure: no DOM, no network, no clock of its own.

// How long an item without pictures is put aside, in ms.
const REST = 30000;

// How many pictures are held ahead at most, and how many where the device or its connection is to be spared.
const PICTURES = 160;
const FEW_PICTURES = 40;

/**
 * How many items of so many pictures each are wanted ahead, and at how many more are asked for: enough to go on without a connection, fifty
 * and more where each is one picture.
 */
export function howFarAhead(pictures, { saveData = false, deviceMemory = 8 } = {}) {
  const most = saveData || deviceMemory <= 2 ? FEW_PICTURES : PICTURES;
  const buffer = Math.min(80, Math.max(5, Math.floor(most / Math.max(1, pictures))));
  return [buffer, Math.ceil(0.65 * buffer)];
}

/**
 * options: buffer (items wanted ahead), refillAt (at fewer than these more are asked for), most (items in one lease), history (how many can be undone), newId() -> UUID, now() -> ms,
 * revision() -> the number of the guidelines that are on the screen, or null; questionRevision: that of the questions.
 * An item is {assignment, item, prompt, bucket, images: [{url, width, height}], expires_at, expiresAt?: ms of the local clock, supersedes?}.
 */
export function createQueue({ questions, questionRevision = null, revision = () => null, buffer = 10, refillAt = 5, most = 100, history = 20, newId = () => crypto.randomUUID(), now = () => Date.now() }) {
  const items = []; // items[0] is on the screen.
  const judged = []; // The newest first: {item, record}.
  const closed = new Set(); // Assignments that are judged and not undone: a lease may hand them out again before the rows arrive.
  const aside = new Map(); // Assignments whose pictures could not be had -> when they may be tried again, in ms.
  const latest = new Map(); // Assignment -> id of the last row of its chain.
  const refused = new Set(); // Assignments of which the server has refused a row.
  const required = questions.filter((question) => question.required !== false).map((question) => question.name);
  const drafts = new Map(); // Assignment -> answers so far.
  const marks = createMarks({ questions }); // Why it will fail, if it does.
  let shownAt = null;
  let mark = refillAt; // At fewer items than these more are asked for.

  const current = () => items[0] ?? null;
  const draft = () => (items.length ? drafts.get(items[0].assignment) ?? {} : {});

  function buildRecord(action, fields) {
    const item = items[0];
    const record = {
      id: newId(),
      assignment: item.assignment,
      action,
      answers: {},
      reason: null,
      shown_at: new Date(shownAt ?? now()).toISOString(),
      decided_at: new Date(now()).toISOString(),
      order: orderOf(item),
      supersedes: latest.get(item.assignment) ?? item.supersedes ?? null,
      guideline_revision: revision(),
      question_revision: questionRevision,
      ...fields,
    };
    latest.set(item.assignment, record.id);
    return record;
  }

  function leave(record) {
    const item = items.shift();
    drafts.delete(item.assignment);
    marks.clear(item.assignment);
    closed.add(item.assignment);
    judged.unshift({ item, record });
    if (judged.length > history) judged.length = history;
    shownAt = null;
    return record;
  }

  /** The finished record, once all required questions are answered and every fail has the reason that it needs; else null. */
  function finish() {
    const { assignment } = items[0];
    const answers = draft();
    if (!required.every((name) => name in answers) || marks.missing(assignment, answers)) return null;
    const details = marks.details(assignment, answers);
    return leave(buildRecord("answer", Object.keys(details).length ? { answers, details } : { answers }));
  }

  return {
    current,
    draft,
    /** Why the current item will fail, if it does: what was marked so far. */
    marks: () => marks.of(items[0]?.assignment),
    /** The question that was failed and waits for its reason, or null. */
    asked: () => (items.length && required.every((name) => name in draft()) ? marks.missing(items[0].assignment, draft()) : null),
    length: () => items.length,
    upcoming: (count) => items.slice(1, 1 + count),
    first: (count) => items.slice(0, count),
    history: () => judged.slice(),
    /** All items with what their next row supersedes: enough to go on with them on another visit. */
    held: () => items.map((item) => ({ ...item, supersedes: latest.get(item.assignment) ?? item.supersedes ?? null })),
    needsMore: () => items.length < mark,
    /** How many to ask for: those that are held count too, since a lease answers with them first, and renews no others. */
    wanted: (unsent = 0) => Math.min(most, Math.max(buffer, items.length) + unsent),
    /** Other numbers of items to want ahead, and to ask for more at. */
    setAhead(newBuffer, newRefillAt = newBuffer) {
      buffer = newBuffer;
      refillAt = newRefillAt;
      mark = refillAt;
    },
    /** A lease has answered with as many as were asked for, or with fewer: then there are no more for now, and each key would ask for them again. */
    noteAnswer(isFull) {
      mark = isFull ? refillAt : Math.max(1, Math.min(refillAt, Math.ceil((items.length * refillAt) / buffer)));
    },

    /** Takes leased items; those known, judged or in `skip` (assignments whose rows wait to be sent) are left out. Returns how many were new. */
    offer(leased, skip = new Set()) {
      const known = new Set(items.map((item) => item.assignment));
      let added = 0;
      for (const item of leased) {
        if (known.has(item.assignment)) {
          const held = items.find((other) => other.assignment === item.assignment);
          held.expires_at = item.expires_at;
          held.expiresAt = item.expiresAt;
          continue;
        }
        if (closed.has(item.assignment) || skip.has(item.assignment) || (aside.get(item.assignment) ?? 0) > now()) continue;
        aside.delete(item.assignment);
        known.add(item.assignment);
        items.push(item);
        added += 1;
        // It was undone elsewhere or never taken, and is judged no longer; the lease says which row is the last of its chain.
        const before = judged.findIndex((entry) => entry.item.assignment === item.assignment);
        if (before < 0) continue;
        judged.splice(before, 1);
        latest.delete(item.assignment);
      }
      // Leases that have run out are nobody's to wait for.
      const answered = new Set(leased.map((item) => item.assignment));
      for (const assignment of aside.keys()) if (!answered.has(assignment)) aside.delete(assignment);
      return added;
    },

    /** Says that the current item was painted; the time to decide counts from here. */
    markShown(at = now()) {
      if (items.length && shownAt === null) shownAt = at;
    },

    /** One question answered. Returns the finished record once all required questions are, else null. */
    answer(question, value) {
      if (!items.length) return null;
      const multiple = questions.find((one) => one.name === question && one.multiple);
      if (multiple) {
        const picked = togglePick(multiple, draft()[question], value, items[0].images.length);
        const { [question]: _, ...others } = draft();
        drafts.set(items[0].assignment, picked === null ? others : { ...others, [question]: picked });
        return endsPick(multiple, value) ? finish() : null;
      }
      const optional = !required.includes(question);
      const answers = { ...draft() };
      if (optional && answers[question] === value) delete answers[question];
      else answers[question] = value;
      drafts.set(items[0].assignment, answers);
      if (optional && required.length) return null;
      return finish();
    },

    /** What is chosen so far, where several may be. Returns the finished record, or null while something is missing. */
    submit: () => (items.length ? finish() : null),

    answerAll(answers) {
      if (!items.length) return null;
      drafts.set(items[0].assignment, { ...draft(), ...answers });
      return finish();
    },

    /** Gives or takes back a reason. Returns the finished record where only this reason was missing, else null. */
    toggleReason(question, reason) {
      if (!items.length) return null;
      const waits = this.asked() !== null;
      marks.toggleReason(items[0].assignment, question, reason);
      return waits ? finish() : null;
    },
    toggleWord: (place) => items.length && marks.toggleWord(items[0].assignment, place),
    setPoint: (point) => items.length && marks.setPoint(items[0].assignment, point),

    /** Starts the current item's answers afresh. Returns whether there were any. */
    clearDraft: () => items.length > 0 && drafts.delete(items[0].assignment),

    skip: (reason = null) => (items.length ? leave(buildRecord("skip", { reason })) : null),
    flag: (reason) => (items.length ? leave(buildRecord("flag", { reason })) : null),

    /** One item of several that are on the screen, with all that is said of it. Returns its record; null where it is not held. */
    judge(assignment, action, fields) {
      const index = items.findIndex((item) => item.assignment === assignment);
      if (index < 0) return null;
      items.unshift(...items.splice(index, 1));
      return leave(buildRecord(action, fields));
    },

    /** Puts these items, which are held, before all others. */
    bringForward(chosen) {
      const rest = items.filter((item) => !chosen.includes(item));
      items.splice(0, items.length, ...chosen, ...rest);
    },

    /** Takes back the last judgment, or that of `assignment`; its item comes up again. Returns the undo's record, or null. */
    undo(assignment = judged[0]?.item.assignment) {
      const index = judged.findIndex((entry) => entry.item.assignment === assignment);
      if (index < 0) return null;
      const [{ item }] = judged.splice(index, 1);
      closed.delete(item.assignment);
      item.expiresAt = null; // Of before it was judged; the undo leases it anew.
      items.unshift(item);
      shownAt = null;
      const record = buildRecord("undo", { shown_at: null, order: [] });
      drafts.delete(item.assignment);
      return record;
    },

    /** Removes leases that have run out. What is on the screen, the first `shown`, stays unless `all`: the server decides about late answers. */
    dropExpired(all = false, shown = 1) {
      const time = now();
      let dropped = 0;
      for (let index = items.length - 1; index >= (all ? 0 : shown); index -= 1) {
        if (items[index].expiresAt && items[index].expiresAt <= time) {
          items.splice(index, 1);
          dropped += 1;
          if (index === 0) shownAt = null;
        }
      }
      return dropped;
    },

    /**
     * The server refused this row: it is no link of its chain, and cannot be undone. If the item is leased again it is shown again, once.
     */
    forget(record) {
      const { assignment } = record;
      const index = judged.findIndex((entry) => entry.record.id === record.id);
      if (index >= 0) judged.splice(index, 1);
      if (latest.get(assignment) === record.id) {
        if (record.supersedes) latest.set(assignment, record.supersedes);
        else latest.delete(assignment);
      }
      if (refused.has(assignment)) closed.add(assignment);
      else if (index >= 0) closed.delete(assignment);
      refused.add(assignment);
    },

    /** Another tab has judged it. Returns whether it was the one on the screen. */
    dropElsewhere(assignment) {
      const index = items.findIndex((item) => item.assignment === assignment);
      closed.add(assignment);
      if (index < 0) return false;
      items.splice(index, 1);
      drafts.delete(assignment);
      marks.clear(assignment);
      if (index === 0) shownAt = null;
      return index === 0;
    },

    /** Another tab took back what it or this one had judged: it may be judged here, too, after all that is held, and not be taken back again. */
    reopenElsewhere({ id, assignment, supersedes }, item) {
      const index = judged.findIndex((entry) => entry.record.id === supersedes);
      if (index >= 0) judged.splice(index, 1);
      closed.delete(assignment);
      latest.set(assignment, id);
      if (item && !items.some((other) => other.assignment === assignment)) items.push(item);
    },

    /** What earlier visits to the page have judged, the newest first: it can be undone here as well. */
    restore(entries) {
      const known = new Set(judged.map(({ record }) => record.id)); // Judged here while the others were read.
      for (const entry of entries.slice(0, history).filter(({ record }) => !known.has(record.id))) {
        judged.push(entry);
        latest.set(entry.item.assignment, entry.record.id);
      }
    },

    /** The server says that it is not this rater's to judge now; it may be again. Returns whether it was the one on the screen. */
    letGo(assignment) {
      const wasClosed = closed.has(assignment);
      const wasShown = this.dropElsewhere(assignment);
      if (!wasClosed) closed.delete(assignment);
      return wasShown;
    },

    /** How many items were put aside and have not come again. */
    aside: () => aside.size,
    /** Those put aside may come again at once. */
    takeBackAside: () => aside.forEach((_, assignment) => aside.set(assignment, 0)),
    /** An item whose pictures cannot be had is put aside for a while; the next lease after that holds it again. */
    setAside(assignment) {
      const index = items.findIndex((item) => item.assignment === assignment);
      if (index < 0) return;
      items.splice(index, 1);
      aside.set(assignment, now() + REST);
      if (index === 0) shownAt = null;
    },
  };
}

/** What was shown, from left to right: slots where the server names them, else ids, else addresses. */
export function orderOf(item) {
  return item.images.map((image) => image.slot ?? image.id ?? image.url);
}

/** The addresses of the pictures of what is in hand, as far as they are here, and of what was judged last, which may be undone. */
export function picturesOf(queue, isHere) {
  const urls = (items) => items.flatMap((item) => item.images.map((image) => image.url));
  const held = urls(queue.first(Infinity)).filter(isHere);
  return [...new Set([...held, ...urls(queue.history().slice(0, 20).map(({ item }) => item))])];
}
