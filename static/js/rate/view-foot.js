// Around the work: progress, pace, what is not sent yet and what was refused, and how far one gets without a connection.
import { describeAnswers } from "./answers.js";
import { build, find, say, toggle } from "./dom.js";

export function createFootView({ root, questions, act }) {
  function showProgress({ done, total, left, pace }) {
    const bar = find("rate-progress");
    bar.max = Math.max(1, total);
    bar.value = Math.min(done, total);
    const figures = `${done} of ${total}`;
    say("rate-figures", left > 0 ? `${figures}, ${left} left for you` : figures);
    const minutes = pace > 0 ? Math.ceil(left / pace) : 0;
    say("rate-pace", pace > 0 ? `${pace} a minute${left > 0 ? `, about ${minutes} min left` : ""}` : "");
  }

  function showOutbox({ waiting, rejected, problem, kept }) {
    const words = waiting === 0 ? (rejected.length ? `${rejected.length} not accepted` : "all saved") : problem === "offline" ? `${waiting} waiting, offline` : problem === "signed-out" ? `${waiting} waiting, signed out` : problem === "no-role" ? `${waiting} waiting, no role` : `${waiting} waiting`;
    say("rate-cloud", words);
    find("rate-cloud-box").dataset.state = waiting === 0 && !rejected.length ? "saved" : problem || !waiting ? "stuck" : "waiting";
    toggle("rate-signed-out", problem === "signed-out");
    toggle("rate-loose", kept === "tab" && waiting > 0);
    toggle("rate-rejected", rejected.length > 0);
    say("rate-rejected-count", rejected.length === 1 ? "One judgment was not accepted." : `${rejected.length} judgments were not accepted.`);
    if (find("rate-rejected-dialog").open || rejected.length) listRejected(rejected);
  }

  /** How much can be judged without a connection; said where there is none. */
  function showAhead({ count, isOffline, isReady }) {
    root.dataset.ahead = isReady ? "ready" : "coming";
    root.dataset.aheadCount = count;
    if (isOffline) say("rate-ahead-count", String(count));
    // It has the place of the pace, so that nothing moves when a connection comes and goes.
    toggle("rate-ahead", isOffline);
    toggle("rate-pace", !isOffline);
  }

  function listRejected(rejected) {
    find("rate-rejected-list").replaceChildren(...rejected.map((row) => {
      const entry = build("li");
      entry.dataset.tone = "bad";
      const said = row.judgment.action === "undo" ? "Undo" : describeAnswers(row.judgment, questions);
      entry.append(build("strong", "", row.about ? `${row.about}: ${said}` : said), build("span", "", row.reason), build("time", "", new Date(row.judgment.decided_at).toLocaleTimeString()));
      const button = build("button", "btn btn--sm", "I have read it");
      button.addEventListener("click", () => act({ type: "dismiss", id: row.id }));
      const again = build("button", "btn btn--sm", "Send it again");
      again.addEventListener("click", () => act({ type: "resend", id: row.id }));
      const both = build("div", "btn-row");
      both.append(again, button);
      entry.append(both);
      return entry;
    }));
    if (!rejected.length) find("rate-rejected-dialog").close();
  }

  return { showProgress, showOutbox, showAhead };
}
