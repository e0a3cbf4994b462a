"""What a rater said of gold items, one after another, as decides on their standing.

Whether they are below the bar is asked after every batch that holds gold (curation.evidence), and what that takes of all their
answers is how many were right in each stretch. So that nobody reads thousands of rows for each batch, GoldRecord keeps these
sums with the time of the last answer in them, and only what came later is read. Of everything else that changes a record, a
correction, an undo, an answer that became known or gold that was retired, nothing has to be told here: the counts beside the
rows keep a sum over the record (`TallyKind.TRAIL`, 40 bits of a hash for each answer), and where that is not what was kept and
what came later, all is read anew. Another record with the same sum is one in a million million.
"""

# ruff: noqa: S608 (Statements are put together from constants.)

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from accounts.rows import fetch
from curation.evidence import Stretches
from curation.models import Campaign, CampaignRater, GoldRecord, TallyKind
from curation.rightness import ACTIVE, MEASURES, PRINT, is_right


class Answer(NamedTuple):
    """A standing answer to a gold item."""

    at: datetime
    is_right: bool
    print: int


def _statement(materialized: str, after: str) -> str:
    """What the rater's answers add up to and those after a time, of one moment; one row without an answer where there are none.
    `said` is where the planner has to begin if it is few."""
    return f"""
    WITH trail AS (
        SELECT coalesce(sum(n), 0)::bigint AS n FROM curation_tally
        WHERE what = %(trail)s AND campaign_id = %(campaign)s AND rater_id = %(rater)s
    ), said AS {materialized} (
        SELECT j.* FROM curation_judgment j WHERE j.rater_id = %(rater)s AND j.action = 'answer' {after}
    ), measured AS (
        SELECT j.id, j.received_at, {is_right("%(compares)s")} AS is_right
        FROM said j JOIN curation_item i ON i.id = j.item_id AND i.campaign_id = %(campaign)s AND i.is_gold
        JOIN curation_golditem g ON g.item_id = i.id AND {ACTIVE} AND {MEASURES}
        WHERE NOT EXISTS (SELECT 1 FROM curation_judgment later WHERE later.supersedes_id = j.id)
    )
    SELECT trail.n, j.received_at, j.is_right, {PRINT}
    FROM trail LEFT JOIN measured j ON true ORDER BY j.received_at, j.id
    """


ALL = _statement("NOT MATERIALIZED", "")
AFTER = _statement("MATERIALIZED", "AND j.received_at > %(after)s")


def stretches_of(campaign: Campaign, place: CampaignRater, length: int) -> Stretches:
    """The record of a rater, whose place the caller has locked, since they are measured, in stretches of this length."""
    kept = GoldRecord.objects.filter(place=place, length=length).first()
    if kept is not None and kept.since == place.measured_since:
        trail, answers = _read(campaign, place, kept.until)
        if kept.trail + sum(answer.print for answer in answers) == trail:
            return _keep(kept, answers) if answers else _stretches(kept)
    _, answers = _read(campaign, place, None)
    return _keep(_empty(place, length, place.measured_since), answers)


def wrong_records(campaign: Campaign) -> list[CampaignRater]:
    """The raters whose kept record is said to be of their answers, and is not what these add up to."""
    wrong = []
    for kept in GoldRecord.objects.filter(place__campaign=campaign).select_related("place__rater").order_by("place"):
        answers = [each for each in _read(campaign, kept.place, None)[1] if kept.until and each.at <= kept.until]
        anew = _add(_empty(kept.place, kept.length, kept.since), answers)
        if anew.trail == kept.trail and _stretches(anew) != _stretches(kept):
            wrong.append(kept.place)
    return wrong


def _empty(place: CampaignRater, length: int, since: datetime | None) -> GoldRecord:
    return GoldRecord(place=place, length=length, since=since, rights=[0])


def _stretches(record: GoldRecord) -> Stretches:
    return Stretches(record.length, record.answers, record.rights)


def _add(record: GoldRecord, answers: Sequence[Answer]) -> GoldRecord:
    """Add these answers, which are later than those in it."""
    for answer in answers:
        record.trail += answer.print
        record.until = answer.at
        if record.since is not None and answer.at <= record.since:
            continue
        if record.answers == len(record.rights) * record.length:
            record.rights.append(0)
        record.rights[-1] += answer.is_right
        record.answers += 1
    return record


def _keep(record: GoldRecord, answers: Sequence[Answer]) -> Stretches:
    columns = ["length", "since", "until", "trail", "answers", "rights"]
    GoldRecord.objects.bulk_create(
        [_add(record, answers)], update_conflicts=True, unique_fields=["place"], update_fields=columns
    )
    return _stretches(record)


def _read(campaign: Campaign, place: CampaignRater, after: datetime | None) -> tuple[int, list[Answer]]:
    values = {
        "trail": str(TallyKind.TRAIL),
        "campaign": campaign.pk,
        "rater": place.rater_id,
        "compares": campaign.compares,
        "after": after,
    }
    rows = fetch(ALL if after is None else AFTER, values)
    return rows[0][0], [Answer(*row[1:]) for row in rows if row[1] is not None]
