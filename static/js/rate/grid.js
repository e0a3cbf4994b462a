// A page of many stickers: which are on it, which are marked, and the rows that it becomes. Pure: no DOM, no network, no clock of its own.

export const SIZES = [12, 24, 48];
const OFFLINE = 50; // So many can be judged without a connection, beside the page that is begun.
const MOST = 100; // In one lease.
const SMALLEST_TILE = 96; // Pixels: below this a face cannot be read.
const LARGEST_TILE = 320;

// What has a meaning of its own on a page; a rater's own keys give way to it.
const MOVES = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", Home: "first", End: "last" };
const COMMANDS_HERE = ["undo", "skip", "skip_why", "flag", "background", "zoom", "view", "guidelines", "help"];

/** The required questions with what passes and what fails: [{question, text, label, pass, fail, key, clearKey}]. */
export function readMarkers({ questions }, keymap) {
  return questions
    .filter((question) => question.required !== false)
    .map((question) => {
      const pass = question.choices.find((choice) => choice.accepts === true).value;
      const fail = question.choices.find((choice) => choice.accepts !== true).value;
      const keyOf = (value) => {
        const key = keymap.choiceKeys.get(`${question.name}\0${value}`);
        return key && !(key in MOVES) ? key : null;
      };
      return { question: question.name, text: question.text, pass, fail, key: keyOf(fail), clearKey: keyOf(pass) };
    });
}

/** The bindings of a page, in the form of keymap.js: what moves and marks, and those commands that mean something here. */
export function buildGridKeymap(markers, keymap) {
  const bindings = new Map([
    ...Object.entries(MOVES).map(([key, direction]) => [key, { type: "move", direction }]),
    [" ", { type: "toggle" }],
    ["Enter", { type: "submit" }],
  ]);
  for (const { question, key, clearKey } of markers) {
    if (key) bindings.set(key, { type: "toggle", question });
    if (clearKey && !bindings.has(clearKey)) bindings.set(clearKey, { type: "clear", question });
  }
  for (const [key, action] of keymap.bindings) if (COMMANDS_HERE.includes(action.type) && !bindings.has(key)) bindings.set(key, action);
  const commandKeys = new Map([...keymap.commandKeys].filter(([name, key]) => bindings.get(key)?.type === name));
  return { ...keymap, bindings, commandKeys };
}

/** Whether a key that is held may act again and again: moving may, marking may not. */
export const repeats = (action) => action?.type === "move";

/**
 * How many stickers are held with pages of so many: whole pages, so many as to go on without a connection, and as one lease may have; two pages where
 * data or memory are dear.
 */
export function howManyAhead(size, { saveData = false, deviceMemory = 8 } = {}) {
  if (saveData || deviceMemory <= 2) return 2 * size;
  return size * Math.min(1 + Math.ceil(OFFLINE / size), Math.floor(MOST / size));
}

function groupByPrompt(items) {
  const groups = new Map();
  for (const item of items) {
    if (!groups.has(item.prompt)) groups.set(item.prompt, []);
    groups.get(item.prompt).push(item);
  }
  return [...groups.values()];
}

/**
 * The items of the next page. Together: whole prompts, as many as fit; the last prompt that is held may have samples that are still to
 * come, so it waits for the next page unless there is no other.
 */
export function composePage(items, size, together) {
  if (!together) return items.slice(0, size);
  const groups = groupByPrompt(items);
  const page = groups.length ? groups[0].slice(0, size) : [];
  for (const group of groups.slice(1, -1)) {
    if (page.length + group.length > size) break;
    page.push(...group);
  }
  return page;
}

/**
 * options: size, together, newId() -> UUID, now() -> ms. A mark is {fails: Set of question names, action: "answer" | "skip" | "flag", reason}.
 */
export function createGrid({ queue, markers, size = 24, together = false, newId = () => crypto.randomUUID(), now = () => Date.now() }) {
  const marks = new Map(); // Assignment -> mark; what has none passes.
  const sent = []; // The newest first: the assignments of the pages that were submitted.
  let page = [];
  let shownAt = null;

  const blank = () => ({ fails: new Set(), action: "answer", reason: null });
  const markOf = (assignment) => marks.get(assignment) ?? blank();
  const isMarked = (assignment) => markOf(assignment).action !== "answer" || markOf(assignment).fails.size > 0;
  const isHere = (assignment) => page.some((item) => item.assignment === assignment);

  function change(assignment, how) {
    if (!isHere(assignment)) return false;
    const mark = { ...markOf(assignment), fails: new Set(markOf(assignment).fails) };
    how(mark);
    marks.set(assignment, mark);
    return true;
  }

  function recall({ action, answers, reason }) {
    const fails = markers.filter(({ question, fail }) => answers[question] === fail).map(({ question }) => question);
    return { fails: new Set(fails), action, reason };
  }

  function buildRow(item, place, id, time) {
    const mark = markOf(item.assignment);
    const answers = Object.fromEntries(markers.map(({ question, pass, fail }) => [question, mark.fails.has(question) ? fail : pass]));
    return queue.judge(item.assignment, mark.action, {
      answers: mark.action === "answer" ? answers : {},
      reason: mark.reason,
      shown_at: new Date(shownAt).toISOString(),
      decided_at: new Date(time).toISOString(),
      page: id,
      place,
      page_size: page.length,
    });
  }

  function undoOne(assignment) {
    const entry = queue.history().find(({ item }) => item.assignment === assignment);
    const record = entry && queue.undo(assignment);
    if (!record) return null;
    marks.set(assignment, recall(entry.record));
    page.unshift(entry.item);
    return record;
  }

  return {
    items: () => page.slice(),
    markOf,
    isMarked,
    size: () => size,
    isTogether: () => together,
    countMarked: () => page.filter((item) => isMarked(item.assignment)).length,
    groups: () => (together ? groupByPrompt(page) : page.map((item) => [item])),

    /** Fills an empty page from the queue. Returns whether there is one. */
    fill() {
      if (!page.length) {
        page = composePage(queue.first(Infinity), size, together);
        queue.bringForward(page);
        shownAt = null;
      }
      return page.length > 0;
    },

    /** What comes after this page, as far as is known. */
    next: () => composePage(queue.first(Infinity).slice(page.length), size, together),

    /** Lets go of what the queue holds no longer. Returns whether anything went. */
    refresh() {
      const before = page.length;
      const held = new Set(queue.first(Infinity));
      page = page.filter((item) => held.has(item));
      return page.length < before;
    },

    /** As the queue's, but a page on which something is marked stays whole: the server decides about late answers. */
    dropExpired(all = false) {
      const touched = page.some((item) => isMarked(item.assignment));
      return queue.dropExpired(all && !touched, page.length);
    },

    /** The rest goes back to the queue and comes up as pages of the new size; marks stay with their stickers. */
    arrange(newSize, newTogether) {
      size = newSize;
      together = newTogether;
      page = [];
    },

    markShown(at = now()) {
      shownAt ??= at;
    },

    /** One question of one sticker: fails, or not any more. `on` says which; without it, the other of what it is. */
    toggle(assignment, question, on) {
      return change(assignment, (mark) => {
        mark.action = "answer";
        mark.reason = null;
        if (on ?? !mark.fails.has(question)) mark.fails.add(question);
        else mark.fails.delete(question);
      });
    },

    /** Skips or reports one sticker when the page is submitted; skipping it twice without a reason takes that back. */
    setAside(assignment, action, reason = null) {
      return change(assignment, (mark) => {
        const back = mark.action === action && action === "skip" && !reason;
        mark.action = back ? "answer" : action;
        mark.reason = back ? null : reason;
      });
    },

    /** The page's rows, in its order: marked fail, unmarked pass. Empty while nobody has seen it. */
    submit() {
      if (!page.length || shownAt === null) return [];
      const id = newId();
      const time = now();
      const rows = page.map((item, place) => buildRow(item, place, id, time)).filter(Boolean);
      sent.unshift(rows.map((row) => row.assignment));
      for (const item of page) marks.delete(item.assignment);
      page = [];
      shownAt = null;
      return rows;
    },

    /** What earlier visits judged, the newest first, can be taken back page by page too. */
    restore(entries) {
      for (const [index, { item, record }] of entries.entries()) {
        const isOfLast = index > 0 && record.page && record.page === entries[index - 1].record.page;
        if (isOfLast) sent.at(-1).unshift(item.assignment);
        else sent.push([item.assignment]);
      }
    },

    /** Takes back one sticker, which comes first on this page. Returns the undo's row, or null. */
    undoOne,

    /** Takes back the last page, which comes up as it was. Returns the undo's rows. */
    undoPage() {
      page = [];
      shownAt = null;
      while (sent.length) {
        const rows = sent.shift().reverse().map(undoOne).filter(Boolean);
        if (rows.length) return rows;
      }
      return [];
    },
  };
}

// ---- geometry ----

/** The index to which a direction leads; boxes: [{x, y}] of the tiles' corners, in order. Rows are told by y; up and down keep to the column. */
export function findNeighbour(boxes, index, direction) {
  const last = boxes.length - 1;
  if (direction === "first") return 0;
  if (direction === "last") return last;
  if (direction === "left") return Math.max(0, index - 1);
  if (direction === "right") return Math.min(last, index + 1);
  const from = boxes[index];
  const side = direction === "down" ? 1 : -1;
  const beyond = boxes.map((box, place) => ({ ...box, place })).filter((box) => (box.y - from.y) * side > 1);
  if (!beyond.length) return index;
  const row = Math.min(...beyond.map((box) => Math.abs(box.y - from.y)));
  const near = beyond.filter((box) => Math.abs(Math.abs(box.y - from.y) - row) <= 1);
  return near.reduce((best, box) => (Math.abs(box.x - from.x) < Math.abs(best.x - from.x) ? box : best)).place;
}

/**
 * The largest side of a tile, in px, with which groups of so many tiles fit without scrolling; where none does, three in a row.
 * `caption` is the height of a group's words, `gap` the room between groups and tiles, `frame` a group's own border on each side.
 */
export function chooseTile({ width, height, groups, gap = 8, caption = 40, frame = 0 }) {
  for (let tile = LARGEST_TILE; tile >= SMALLEST_TILE; tile -= 4) if (heightOf(groups, tile, { width, gap, caption, frame }) <= height) return tile;
  return Math.max(64, Math.min(SMALLEST_TILE + 32, Math.floor((width - 2 * frame - 2 * gap) / 3)));
}

function heightOf(groups, tile, { width, gap, caption, frame }) {
  const inARow = Math.max(1, Math.floor((width - 2 * frame + gap) / (tile + gap)));
  let height = 0;
  let used = Infinity;
  let row = 0;
  for (const count of groups) {
    const columns = Math.min(count, inARow);
    const breadth = columns * (tile + gap) - gap + 2 * frame;
    const depth = Math.ceil(count / inARow) * (tile + gap) - gap + caption + 2 * frame;
    if (used + gap + breadth > width) {
      height += row + (row ? gap : 0);
      used = breadth;
      row = depth;
    } else {
      used += gap + breadth;
      row = Math.max(row, depth);
    }
  }
  return height + row;
}
