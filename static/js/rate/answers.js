// What an answer says, in words and as a tone. Pure.
import { readPicks } from "./pick.js";

/** "pass", "fail", or "even" where no choice of the question is the right one. */
export function toneOf(choice, question) {
  if (choice.accepts === true) return "pass";
  return question.choices.some((other) => other.accepts === true) ? "fail" : "even";
}

/** A record in the words of its questions. */
export function describeAnswers(record, questions) {
  if (record.action === "skip") return record.reason ? `skipped (${record.reason})` : "skipped";
  if (record.action === "flag") return record.reason ? `reported (${record.reason})` : "reported";
  return questions
    .filter((question) => question.name in record.answers)
    .map((question) => {
      const label = question.choices.find((choice) => choice.value === record.answers[question.name])?.label ?? record.answers[question.name];
      const reasons = record.details?.[question.name]?.reasons;
      return reasons ? `${label} (${reasons.join(", ").toLowerCase()})` : label;
    })
    .join(", ");
}

/** What a record is marked with where it has room for no words: "pass", "fail", "even" or "skip". */
export function markOf(record, questions) {
  if (record.action !== "answer") return "skip";
  const judged = questions.filter((question) => question.name in record.answers && question.choices.some((choice) => choice.accepts === true));
  if (!judged.length) return "even";
  return judged.every((question) => question.choices.find((choice) => choice.value === readPicks(record.answers[question.name])[0])?.accepts) ? "pass" : "fail";
}
