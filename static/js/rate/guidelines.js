// Which guidelines are on the screen, and what of them its rater is yet to be told. Pure: no DOM, no network.

/**
 * options: revision (the number of the guidelines on the screen), news (what the rater was not told: [{revision, change, at}], the oldest first).
 */
export function createGuidelines({ revision = null, news = [] }) {
  let shown = revision;
  let untold = news;
  let coming = null; // {revision, html}: newer than what is shown.
  let open = null; // What the rater is being told: {revision, news, html}.
  let read = 0; // The newest revision that was read here.

  function replace(revision) {
    shown = revision;
    if (coming && coming.revision <= revision) coming = null;
  }

  return {
    revision: () => shown,

    /** Takes in what a lease says. Returns the revision of which the server should hear that it was read, or null. */
    take({ guideline_revision: newest, guideline_news: told = [], guidelines_html: html }) {
      if (newest > shown && newest > (coming?.revision ?? 0) && typeof html === "string") coming = { revision: newest, html };
      untold = told.filter((one) => one.revision > read);
      return told.length > untold.length ? read : null;
    },

    /** What to tell before the next item comes: {revision, news, html: null where the text is on the screen already}; null where there is nothing. */
    tell() {
      if (!open && untold.length) open = { revision: coming?.revision ?? shown, news: untold, html: coming?.html ?? null };
      return open;
    },

    /** The rater has read what they were told. Returns its revision: what comes later is not read. */
    dismiss() {
      read = open.revision;
      replace(read);
      untold = untold.filter((one) => one.revision > read);
      open = null;
      return read;
    },

    /** The text of a revision that was read on another screen, to be put on this one; null where there is none. */
    takeQuietly() {
      if (open || untold.length || !coming) return null;
      const { revision: newest, html } = coming;
      replace(newest);
      return html;
    },
  };
}
