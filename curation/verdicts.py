"""Verdicts: what the standing judgments of an item add up to, by the rule of its campaign (curation.rules).

An item with fewer judgments than its campaign wants is pending. A campaign may want more of what is not decided: an item is
open again while the judgments that may still come could change its verdict, or while an estimate finds it undecided. Judgments
that were superseded or undone, skips and flags do not count. What a curator decided on an item (curation.adjudications) stands above the rule, whatever comes in afterwards.
"""

# ruff: noqa: S608 (Statements are put together from this module's own constants.)

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from accounts.rows import Columns, execute_prepared, fetch_prepared
from curation.estimates import Known, nothing_known, read_known
from curation.models import (
    COMPARISONS,
    Campaign,
    CampaignKind,
    CampaignState,
    Item,
    Judgment,
    Outcome,
    Question,
    Verdict,
)
from curation.order import rerank
from curation.picks import mark_candidates, tally_picks
from curation.rules import (
    MAJORITY,
    SIDES,
    Posteriors,
    Reading,
    Rule,
    is_certain,
    read_posteriors,
    read_rule,
    read_votes,
)
from curation.sets import side_of

Tallies = dict[str, dict[str, int]]
# Of a comparison, the baseline on the left.
STRAIGHT = (0, 1)
PENDING = Reading(Outcome.PENDING, False)
QUESTION = Columns(Question)
# What every batch of judgments asks and writes, in statements of our own (accounts.rows).
QUESTIONS = f"SELECT {QUESTION.sql} FROM curation_question WHERE campaign_id = %s ORDER BY position"
# As Judgment.objects.standing().
STANDING = """
SELECT item_id, answers::json, "order"::json, rater_id FROM curation_judgment said
WHERE item_id = ANY(%s::bigint[]) AND action = 'answer'
  AND NOT EXISTS (SELECT 1 FROM curation_judgment later WHERE later.supersedes_id = said.id)
  AND NOT EXISTS (SELECT 1 FROM curation_assignment barred WHERE barred.id = said.assignment_id AND barred.excluded)
"""
WRITE_ITEMS = """
UPDATE curation_item i SET judged = v.judged, is_open = v.is_open
FROM json_to_recordset(%s::json) v (item bigint, judged int, is_open bool) WHERE i.id = v.item
"""
WRITE_VERDICTS = """
INSERT INTO curation_verdict (item_id, rule, outcome, by_rule, contested, tallies, posteriors, judgments, updated_at)
SELECT item, rule, outcome, by_rule, contested, tallies, posteriors, judgments, statement_timestamp()
FROM json_to_recordset(%s::json) v (item bigint, rule text, outcome text, by_rule text, contested bool, tallies jsonb,
                                    posteriors jsonb, judgments int)
ON CONFLICT (item_id) DO UPDATE SET
    rule = excluded.rule, outcome = excluded.outcome, by_rule = excluded.by_rule, contested = excluded.contested,
    tallies = excluded.tallies, posteriors = excluded.posteriors, judgments = excluded.judgments, updated_at = excluded.updated_at
"""


class Answer(NamedTuple):
    """A standing judgment: its answers, the slots as they were shown from left to right, and whose it is; 0 where that does not
    matter."""

    answers: Mapping[str, str]
    order: Sequence[int]
    rater_id: int = 0


class Preference(NamedTuple):
    """One rater's answer to one question of a comparison; `choice` is baseline, candidate, tie or both_bad."""

    item_id: int
    prompt_id: int
    bucket: str
    rater_id: int
    question: str
    choice: str


def refresh_verdicts(
    campaign: Campaign,
    items: Collection[Item],
    *,
    read_under_locks: bool = False,
) -> None:
    """Recount these items, whose rows the caller has locked: `judged`, `is_open`, the verdict, and the rank.

    Under an estimated rule the judgments are weighed by what the last estimate found of their raters. `read_under_locks` says
    that the caller read the campaign after it had the locks.
    """
    if not read_under_locks:
        # Read before, they may be those of before a change whose recount held the items.
        campaign.refresh_from_db(fields=["rule", "state"])
    rule, questions = read_rule(campaign.rule), [QUESTION.read(row) for row in fetch_prepared(QUESTIONS, [campaign.pk])]
    standing = standing_answers(items)
    known: dict[str, Known] = {}
    if rule.is_estimated:
        raters = {answer.rater_id for answers in standing.values() for answer in answers}
        known = read_known(campaign.pk, raters)
    verdicts = []
    for item in items:
        answers = standing[item.pk]
        item.judged = len(answers)
        tallies = tally(campaign.kind, questions, answers)
        own = None
        if rule.is_estimated and len(answers) >= campaign.overlap:
            own = {q.name: likely(campaign.kind, q, known.get(q.name), answers) for q in questions}
        reading, wants_more = decide(rule, campaign, questions, tallies, len(answers), own)
        item.is_open = wants_more and not item.adjudicated
        verdicts.append(
            Verdict(
                item=item,
                rule=rule.name,
                outcome=item.adjudicated or reading.outcome,
                by_rule=reading.outcome,
                contested=reading.contested,
                tallies=tallies,
                posteriors=own,
                judgments=len(answers),
            )
        )
    _write_items(items)
    if campaign.kind == CampaignKind.PICK:
        counted, outcomes = (
            {row.item_id: row.tallies for row in verdicts},
            {row.item_id: row.outcome for row in verdicts},
        )
        mark_candidates(items, counted, outcomes)
    _write_verdicts(verdicts)
    rerank(campaign, [item.pk for item in items])


def _write_items(items: Collection[Item]) -> None:
    rows = [{"item": item.pk, "judged": item.judged, "is_open": item.is_open} for item in items]
    execute_prepared(WRITE_ITEMS, [json.dumps(rows)])


def _write_verdicts(verdicts: Collection[Verdict]) -> None:
    """Insert them, or put them in the place of those that the items have."""
    rows = [
        {
            "item": row.item_id,
            "rule": row.rule,
            "outcome": row.outcome,
            "by_rule": row.by_rule,
            "contested": row.contested,
            "tallies": row.tallies,
            "posteriors": row.posteriors,
            "judgments": row.judgments,
        }
        for row in verdicts
    ]
    execute_prepared(WRITE_VERDICTS, [json.dumps(rows)])


def standing_answers(items: Iterable[Item]) -> defaultdict[int, list[Answer]]:
    """Item id -> its standing answers."""
    found: defaultdict[int, list[Answer]] = defaultdict(list)
    for item_id, *said in fetch_prepared(STANDING, [[item.pk for item in items]]):
        found[item_id].append(Answer(*said))
    return found


def tally(kind: str, questions: Sequence[Question], answers: Sequence[Answer]) -> Tallies:
    """Question name -> choice -> count. In a comparison left and right are counted as baseline and candidate, of a pick how
    often each candidate was picked and left."""
    if kind == CampaignKind.PICK:
        return tally_picks((answer.answers, answer.order) for answer in answers)
    counts: Tallies = {}
    for question in questions:
        given = Counter(
            preferred(answer.answers[question.name], answer.order)
            if kind in COMPARISONS
            else answer.answers[question.name]
            for answer in answers
            if question.name in answer.answers
        )
        counts[question.name] = dict(sorted(given.items()))
    return counts


def likely(kind: str, question: Question, known: Known | None, answers: Sequence[Answer]) -> dict[str, float]:
    """Choice -> how likely it is the true answer to the question, by these answers and what is known of who gave them."""
    compares = kind in COMPARISONS
    if known is None:
        values = [choice["value"] for choice in question.choices]
        known = nothing_known([preferred(value, STRAIGHT) if compares else value for value in values])
    return known.posterior(
        (answer.rater_id, preferred(value, answer.order) if compares else value)
        for answer in answers
        if (value := answer.answers.get(question.name)) is not None
    )


def preferred(value: str, order: Sequence[int]) -> str:
    """What left and right were: the first half of the slots is the baseline, the second the candidate. Other values stay."""
    if value not in ("left", "right"):
        return value
    return SIDES[side_of(order[0] if value == "left" else order[-1], len(order))]


def decide(
    rule: Rule,
    campaign: Campaign,
    questions: Sequence[Question],
    tallies: Tallies,
    judgments: int,
    posteriors: Posteriors | None = None,
) -> tuple[Reading, bool]:
    """What the rule makes of an item with so many judgments, and whether more of them are wanted."""
    if judgments < campaign.overlap:
        return PENDING, True
    if not rule.is_estimated:
        reading = read_votes(rule, campaign.kind, questions, tallies)
        is_decided = is_certain(rule, campaign.kind, questions, tallies, campaign.most)
    elif posteriors:
        reading = read_posteriors(rule, campaign.kind, questions, posteriors)
        is_decided = not reading.contested
    else:
        return PENDING, False  # From before judgments were weighed as they come; the next estimate tells.
    # What no rater will be handed any more is decided by what there is.
    wants_more = judgments < campaign.most and not is_decided and campaign.state != CampaignState.CLOSED
    return (PENDING if wants_more else reading), wants_more


def decide_alone(kind: str, questions: Sequence[Question], answers: Mapping[str, str], order: Sequence[int]) -> Outcome:
    """The outcome where one person decides."""
    return read_votes(MAJORITY, kind, questions, tally(kind, questions, [Answer(answers, order)])).outcome


def preferences(campaign: Campaign) -> Iterator[Preference]:
    """Every standing answer of a comparison, each question on its own, with the sides resolved."""
    standing = Judgment.objects.standing().filter(item__campaign=campaign, item__is_gold=False)
    rows = standing.order_by("item__position", "rater_id")
    fields = ("item_id", "item__prompt_id", "item__bucket", "rater_id", "answers", "order")
    for item_id, prompt_id, bucket, rater_id, answers, order in rows.values_list(*fields).iterator():
        for question, value in answers.items():
            yield Preference(item_id, prompt_id, bucket, rater_id, question, preferred(value, order))
