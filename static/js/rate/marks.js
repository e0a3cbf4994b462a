// Why an item fails: reasons, marked words and a point, gathered before the answer and sent with it. Pure.

/** Whether this choice speaks against the item; where no choice of the question accepts, none does. */
export function isFail(question, value) {
  const accepts = (question.choices ?? []).filter((choice) => choice.accepts === true).map((choice) => choice.value);
  return accepts.length > 0 && !accepts.includes(value);
}

/** The marks of items by their assignment. A mark counts only for a question that is then failed. */
export function createMarks({ questions }) {
  const kept = new Map(); // Assignment -> {reasons: Map(question -> [reason]), words: [place], point: [x, y] or null}
  const empty = () => ({ reasons: new Map(), words: [], point: null });
  const of = (assignment) => kept.get(assignment) ?? empty();

  function change(assignment, work) {
    const marks = of(assignment);
    work(marks);
    kept.set(assignment, marks);
  }

  const toggled = (list, one) => (list.includes(one) ? list.filter((other) => other !== one) : [...list, one]);

  return {
    of,
    clear: (assignment) => kept.delete(assignment),
    toggleReason: (assignment, question, reason) => change(assignment, (marks) => marks.reasons.set(question, toggled(marks.reasons.get(question) ?? [], reason))),
    toggleWord: (assignment, place) => change(assignment, (marks) => {
      marks.words = toggled(marks.words, place).sort((a, b) => a - b);
    }),
    /** `point`: [x, y] from the top left, 0 to 1, or null to take it away. */
    setPoint: (assignment, point) => change(assignment, (marks) => {
      marks.point = point && point.map((each) => Math.round(Math.min(1, Math.max(0, each)) * 1e4) / 1e4);
    }),
    /** {question: {reasons?, words?, point?}} of the questions that these answers fail, as the server takes it. */
    details(assignment, answers) {
      const marks = of(assignment);
      const details = {};
      for (const question of questions) {
        if (!(question.name in answers) || !isFail(question, answers[question.name])) continue;
        const detail = {};
        const reasons = marks.reasons.get(question.name) ?? [];
        if (reasons.length) detail.reasons = reasons;
        if (question.marks === "words" && marks.words.length) detail.words = marks.words;
        if (question.marks === "point" && marks.point) detail.point = marks.point;
        if (Object.keys(detail).length) details[question.name] = detail;
      }
      return details;
    },
    /** The first question that these answers fail and that still needs a reason, or null. */
    missing(assignment, answers) {
      const { reasons } = of(assignment);
      const open = questions.find((question) => question.needs_reason && question.name in answers && isFail(question, answers[question.name]) && !reasons.get(question.name)?.length);
      return open?.name ?? null;
    },
  };
}
