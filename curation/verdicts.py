"""Verdicts: what the standing judgments of an item add up to, by the rule of its campaign (curation.rules).

An item with fewer judgments than its campaign wants is pending. A campaign may want more of what is not decided: an item is
open again while the judgments that may still come could change its verdict, or while an estimate finds it undecided. Judgments
that were superseded or undone, skips and flags do not count. What a curator decided on an item (curation.adjudications) stands above the rule, whatever comes in afterwards.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connection

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
PENDING = Reading(Outcome.PENDING, False)


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


def refresh_verdicts(
    campaign: Campaign,
    items: Collection[Item],
    posteriors: Mapping[int, Posteriors] | None = None,
    *,
    read_under_locks: bool = False,
) -> None:
    """Recount these items, whose rows the caller has locked: `judged`, `is_open`, the verdict, and the rank.

    Under an estimated rule `posteriors` (item id -> question -> choice -> likelihood) are those of a new estimate; without
    them the estimate of before stands, and what had none is pending. `read_under_locks` says that the caller read the campaign
    after it had the locks.
    """
    if not read_under_locks:
        # Read before, they may be those of before a change whose recount held the items.
        campaign.refresh_from_db(fields=["rule", "state"])
    rule, questions = read_rule(campaign.rule), list(campaign.questions.all())
    standing = standing_answers(items)
    is_new, likely = posteriors is not None, posteriors or {}
    if rule.is_estimated and not is_new:
        likely = _estimated_before(items)
    verdicts = []
    for item in items:
        answers = standing[item.pk]
        item.judged = len(answers)
        tallies = tally(campaign.kind, questions, answers)
        # What an estimate says of an item that has not all its judgments yet is not kept: it would be outdated when it has.
        own = None if is_new and len(answers) < campaign.overlap else likely.get(item.pk)
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


# Statements of our own: Django's for many rows take longer to put together than the database takes to carry them out, for each
# batch of judgments.
def _write_items(items: Collection[Item]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE curation_item i SET judged = v.judged, is_open = v.is_open "
            "FROM unnest(%s::bigint[], %s::int[], %s::bool[]) v (item, judged, is_open) WHERE i.id = v.item",
            [[item.pk for item in items], [item.judged for item in items], [item.is_open for item in items]],
        )


def _write_verdicts(verdicts: Collection[Verdict]) -> None:
    """Insert them, or put them in the place of those that the items have."""
    columns: list[list[Any]] = [
        [row.item_id for row in verdicts],
        [row.rule for row in verdicts],
        [str(row.outcome) for row in verdicts],
        [str(row.by_rule) for row in verdicts],
        [row.contested for row in verdicts],
        [json.dumps(row.tallies) for row in verdicts],
        [None if row.posteriors is None else json.dumps(row.posteriors) for row in verdicts],
        [row.judgments for row in verdicts],
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO curation_verdict
                (item_id, rule, outcome, by_rule, contested, tallies, posteriors, judgments, updated_at)
            SELECT item, rule, outcome, by_rule, contested, tallies::jsonb, posteriors::jsonb, judgments, statement_timestamp()
            FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::bool[], %s::text[], %s::text[], %s::int[])
                v (item, rule, outcome, by_rule, contested, tallies, posteriors, judgments)
            ON CONFLICT (item_id) DO UPDATE SET
                rule = excluded.rule, outcome = excluded.outcome, by_rule = excluded.by_rule, contested = excluded.contested,
                tallies = excluded.tallies, posteriors = excluded.posteriors, judgments = excluded.judgments,
                updated_at = excluded.updated_at
            """,
            columns,
        )


def _estimated_before(items: Collection[Item]) -> dict[int, Posteriors]:
    rows = Verdict.objects.filter(item__in=[item.pk for item in items]).exclude(posteriors=None)
    return {item: likely for item, likely in rows.order_by().values_list("item_id", "posteriors") if likely}


def standing_answers(items: Iterable[Item]) -> defaultdict[int, list[Answer]]:
    """Item id -> its standing answers."""
    rows = Judgment.objects.standing().filter(item__in=[item.pk for item in items])
    found: defaultdict[int, list[Answer]] = defaultdict(list)
    for item_id, answers, order in rows.order_by().values_list("item_id", "answers", "order"):
        found[item_id].append(Answer(answers, order))
    return found


def tally(kind: str, questions: Sequence[Question], answers: Sequence[Answer]) -> Tallies:
    """Question name -> choice -> count. In a comparison left and right are counted as baseline and candidate, of a pick how
    often each candidate was picked and left."""
    if kind == CampaignKind.PICK:
        return tally_picks(answers)
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
        return PENDING, False  # The next estimate tells.
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
