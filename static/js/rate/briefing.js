// Tells a rater what changed in the guidelines and questions before the next item comes, on either screen.
import { createGuidelines } from "./guidelines.js";
import { createNewsView } from "./view-news.js";

/**
 * after(): goes on to the item that waited. reload() opens the page anew, which then has the questions as they read now, since keys, buttons and rows
 * of one visit are of one revision; it rejects where something would be lost, or the server does not answer. Then one goes on as before.
 */
export function createBriefing({ config, server, after, reload }) {
  const guidelines = createGuidelines({ revision: config.guideline_revision, news: config.guideline_news });
  let questionNews = config.question_news ?? [];
  let newerQuestions = false;
  let reloading = false;
  const view = createNewsView({
    onRead() {
      const told = guidelines.tell();
      if (told) {
        if (told.html !== null) view.replaceText(told.html);
        say({ guideline_revision: guidelines.dismiss() });
      }
      if (questionNews.length) say({ question_revision: config.question_revision });
      questionNews = [];
      after();
    },
  });

  // Unheard it is said again after the next lease, which still has that news.
  const say = (revisions) => server.sayRead(revisions).catch(() => {});

  return {
    revision: guidelines.revision,
    takeLease(answer) {
      const unheard = guidelines.take(answer);
      if (unheard) say({ guideline_revision: unheard });
      newerQuestions = (answer.question_revision ?? 0) > (config.question_revision ?? 0);
    },
    /** Whether the next item has to wait: the rater is being told, from now on or already, or the questions are about to come anew. */
    holds() {
      if (reloading) return true;
      if (newerQuestions) {
        newerQuestions = false; // Until the next lease, should it not succeed.
        reloading = true;
        reload().catch(() => {
          reloading = false;
          after();
        });
        return true;
      }
      const told = guidelines.tell();
      if (told || questionNews.length) {
        view.show({ news: told?.news ?? [], questionNews, html: told?.html ?? null });
        return true;
      }
      const html = guidelines.takeQuietly();
      if (html !== null) view.replaceText(html);
      return false;
    },
  };
}
