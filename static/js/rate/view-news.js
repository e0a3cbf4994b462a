// What changed in the guidelines, in a dialog over the screen; and the guidelines beside the work.
import { build, find } from "./dom.js";

const STRAY = 500; // Milliseconds within which a press was meant for what was there before.

/** onRead(): the rater has closed it, by its button or by Escape, which no item ever has. */
export function createNewsView({ onRead }) {
  const dialog = find("rate-news");
  const text = find("rate-guidelines");
  let openedAt = 0;
  let isTelling = false;

  /** The server has made this HTML safe; parsed apart, it loads and runs nothing. */
  function parse(html) {
    const { body } = new DOMParser().parseFromString(html, "text/html");
    return [...body.childNodes];
  }

  function list({ revision, change, at }, what) {
    const entry = build("li");
    const moment = build("time", "", new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }));
    moment.dateTime = at;
    entry.append(build("strong", "", change), build("span", "small muted", `${what}, revision ${revision}`), moment);
    return entry;
  }

  // A finger or a mouse that was about to press something else must not close it. A key on the button can only be meant for it:
  // the focus is on the title when it opens.
  find("rate-news-read").addEventListener("click", (event) => {
    if (event.detail === 0 || event.timeStamp - openedAt > STRAY) close();
  });
  dialog.addEventListener("cancel", close);
  dialog.addEventListener("close", read);

  // At once: the browser's own closing says so in a later task, and the next key may come before that.
  function close() {
    dialog.close();
    read();
  }

  function read() {
    if (!isTelling) return;
    isTelling = false;
    onRead();
  }

  return {
    show({ news, questionNews = [], html }) {
      if (dialog.open) return;
      const changed = news.length ? (questionNews.length ? "The guidelines and questions have changed" : "The guidelines have changed") : "The questions have changed";
      find("rate-news-title").textContent = changed;
      find("rate-news-list").replaceChildren(...news.map((one) => list(one, "Guidelines")), ...questionNews.map((one) => list(one, "Questions")));
      const whole = html === null ? [...text.childNodes].map((node) => node.cloneNode(true)) : parse(html);
      find("rate-news-text").replaceChildren(...whole);
      find("rate-news-whole").open = false;
      dialog.showModal();
      isTelling = true;
      openedAt = performance.now();
    },
    replaceText: (html) => text.replaceChildren(...parse(html)),
  };
}
