// Tells a rater what changed in the guidelines before the next item comes, on either screen.
import { createGuidelines } from "./guidelines.js";
import { createNewsView } from "./view-news.js";

/** after(): goes on to the item that waited. */
export function createBriefing({ config, server, after }) {
  const guidelines = createGuidelines({ revision: config.guideline_revision, news: config.guideline_news });
  const view = createNewsView({
    onRead() {
      const told = guidelines.tell();
      if (told.html !== null) view.replaceText(told.html);
      say(guidelines.dismiss());
      after();
    },
  });

  // Unheard it is said again after the next lease, which still has that news.
  const say = (revision) => server.sayRead(revision).catch(() => {});

  return {
    revision: guidelines.revision,
    takeLease(answer) {
      const unheard = guidelines.take(answer);
      if (unheard) say(unheard);
    },
    /** Whether the next item has to wait: the rater is being told, from now on or already. */
    holds() {
      const told = guidelines.tell();
      if (told) {
        view.show(told);
        return true;
      }
      const html = guidelines.takeQuietly();
      if (html !== null) view.replaceText(html);
      return false;
    },
  };
}
