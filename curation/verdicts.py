"""Verdicts: what the standing judgments of an item add up to, by the rule `majority`.

Alignment and style: an item is accepted when more than half of its judgments accept on every required question, rejected
when more than half refuse on any, and split otherwise. A comparison goes to the side that more than half preferred, by its
first question, and is a tie otherwise. An item with fewer judgments than its campaign wants is pending. Judgments that were
superseded or undone, skips and flags do not count.

What a curator decided on an item (curation.adjudications) stands above the rule, whatever comes in afterwards.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from django.db.models.functions import Now

from curation.models import Campaign, CampaignKind, Item, Judgment, Outcome, Question, Verdict

MAJORITY = "majority"
RULES = {MAJORITY: "More than half of the judgments accept on every question"}
# The same rule where two samples were compared.
PREFERENCE_RULES = {MAJORITY: "More than half of the judgments prefer one side"}
Tallies = dict[str, dict[str, int]]
SIDES = (Outcome.BASELINE.value, Outcome.CANDIDATE.value)


class Answer(NamedTuple):
    """A standing judgment: its answers, and the slots as they were shown from left to right."""

    answers: Mapping[str, str]
    order: Sequence[int]


class Preference(NamedTuple):
    """One rater's answer to one question of a comparison; `choice` is baseline, candidate, tie or both_bad."""

    item_id: int
    prompt_id: int
    bucket: str
    rater_id: int
    question: str
    choice: str


def refresh_verdicts(campaign: Campaign, items: Collection[Item]) -> None:
    """Recount these items, whose rows the caller has locked: `judged`, `is_open` and the verdict."""
    questions = list(campaign.questions.all())
    standing = standing_answers(items)
    verdicts = []
    for item in items:
        answers = standing[item.pk]
        item.judged = len(answers)
        item.is_open = len(answers) < campaign.overlap and not item.adjudicated
        tallies = tally(campaign.kind, questions, answers)
        outcome = decide(campaign.kind, questions, tallies, len(answers), campaign.overlap)
        verdicts.append(
            Verdict(
                item=item,
                rule=MAJORITY,
                outcome=item.adjudicated or outcome,
                by_rule=outcome,
                contested=is_contested(campaign.kind, questions, tallies, outcome),
                tallies=tallies,
                judgments=len(answers),
                updated_at=Now(),
            )
        )
    Item.objects.bulk_update(items, ["judged", "is_open"])
    Verdict.objects.bulk_create(
        verdicts,
        update_conflicts=True,
        unique_fields=["item", "rule"],
        update_fields=["outcome", "by_rule", "contested", "tallies", "judgments", "updated_at"],
    )


def standing_answers(items: Iterable[Item]) -> defaultdict[int, list[Answer]]:
    """Item id -> its standing answers."""
    rows = Judgment.objects.standing().filter(item__in=[item.pk for item in items])
    found: defaultdict[int, list[Answer]] = defaultdict(list)
    for item_id, answers, order in rows.order_by().values_list("item_id", "answers", "order"):
        found[item_id].append(Answer(answers, order))
    return found


def tally(kind: str, questions: Sequence[Question], answers: Sequence[Answer]) -> Tallies:
    """Question name -> choice -> count. In a comparison left and right are counted as baseline and candidate."""
    counts: Tallies = {}
    for question in questions:
        given = Counter(
            preferred(answer.answers[question.name], answer.order)
            if kind == CampaignKind.COMPARE
            else answer.answers[question.name]
            for answer in answers
            if question.name in answer.answers
        )
        counts[question.name] = dict(sorted(given.items()))
    return counts


def preferred(value: str, order: Sequence[int]) -> str:
    """What left and right were: slot 0 is the baseline, slot 1 the candidate. Other values stay."""
    if value not in ("left", "right"):
        return value
    return SIDES[order[0] if value == "left" else order[-1]]


def decide(kind: str, questions: Sequence[Question], tallies: Tallies, judgments: int, overlap: int) -> Outcome:
    """The outcome by majority."""
    if judgments < overlap:
        return Outcome.PENDING
    if kind == CampaignKind.COMPARE:
        first = tallies[questions[0].name]
        winner = next((side for side in SIDES if 2 * first.get(side, 0) > sum(first.values())), None)
        return Outcome(winner) if winner else Outcome.TIE
    passed = []
    for question in questions:
        if not question.required:
            continue
        accepts = accepting(question)
        total = sum(tallies[question.name].values())
        yes = sum(count for value, count in tallies[question.name].items() if value in accepts)
        if 2 * yes < total:
            return Outcome.REJECTED
        passed.append(2 * yes > total)
    return Outcome.ACCEPTED if all(passed) else Outcome.SPLIT


def decide_alone(kind: str, questions: Sequence[Question], answers: Mapping[str, str], order: Sequence[int]) -> Outcome:
    """The outcome where one person decides."""
    return decide(kind, questions, tally(kind, questions, [Answer(answers, order)]), 1, 1)


def is_contested(kind: str, questions: Sequence[Question], tallies: Tallies, outcome: Outcome) -> bool:
    """Whether the judgments of an item that has enough of them contradict each other, so that a curator should decide.

    A tie of a comparison is a result, and no contradiction, unless as many raters prefer the one side as the other.
    """
    if outcome == Outcome.TIE:
        baseline, candidate = (tallies[questions[0].name].get(side, 0) for side in SIDES)
        return baseline == candidate > 0
    return outcome == Outcome.SPLIT


def accepting(question: Question) -> set[str]:
    """The values that count towards a pass."""
    return {choice["value"] for choice in question.choices if choice.get("accepts")}


def preferences(campaign: Campaign) -> Iterator[Preference]:
    """Every standing answer of a comparison, each question on its own, with the sides resolved."""
    standing = Judgment.objects.standing().filter(item__campaign=campaign, item__is_gold=False)
    rows = standing.order_by("item__position", "rater_id")
    fields = ("item_id", "item__prompt_id", "item__bucket", "rater_id", "answers", "order")
    for item_id, prompt_id, bucket, rater_id, answers, order in rows.values_list(*fields).iterator():
        for question, value in answers.items():
            yield Preference(item_id, prompt_id, bucket, rater_id, question, preferred(value, order))
