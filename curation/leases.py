"""Leases: what is read for each, in statements of our own, since every rater asks for one again and again."""

# ruff: noqa: S608 (Statements are put together from this module's own constants.)

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from accounts.models import User
from accounts.rows import Columns, fetch_prepared
from curation.models import Assignment, Campaign, CampaignRater, Item, Judgment
from generation.models import Prompt, Sample

CAMPAIGN, PLACE = Columns(Campaign, "c"), Columns(CampaignRater, "r")
LOCK_PLACE = f"""
SELECT {PLACE.sql} FROM curation_campaignrater r JOIN curation_campaign c ON c.id = r.campaign_id
WHERE c.slug = %s AND r.rater_id = %s AND r.removed_at IS NULL FOR NO KEY UPDATE OF r
"""
AS_IT_IS = f"""
SELECT {CAMPAIGN.sql}, statement_timestamp(),
       EXISTS (SELECT 1 FROM curation_item i WHERE i.campaign_id = c.id AND i.is_gold),
       (SELECT json_build_object('pk', g.id, 'number', g.number, 'asks_up_to', g.asks_up_to)
        FROM curation_guidelinerevision g WHERE g.campaign_id = c.id ORDER BY g.number DESC LIMIT 1),
       (SELECT json_build_object('pk', q.id, 'number', q.number, 'questions', q.questions)
        FROM curation_questionrevision q WHERE q.campaign_id = c.id ORDER BY q.number DESC LIMIT 1)
FROM curation_campaign c WHERE c.id = %s
"""
# What their lease is still good for, in the order in which it was handed out: by position, gold items would stand apart.
IN_HAND = """
SELECT a.id FROM curation_assignment a JOIN curation_item i ON i.id = a.item_id
WHERE a.rater_id = %s AND a.state = 'leased' AND a.expires_at > statement_timestamp() AND i.campaign_id = %s
  AND (i.is_gold OR (i.is_open AND NOT %s)) ORDER BY a.id LIMIT %s
"""
# Also where the lease has run out: the rater may still answer, and the server decides about that.
STILL_HELD = """
SELECT id FROM curation_assignment WHERE id = ANY(%s::bigint[]) AND rater_id = %s AND state = 'leased'
"""
ASSIGNMENT, ITEM, PROMPT = Columns(Assignment, "a"), Columns(Item, "i"), Columns(Prompt, "p")
HELD = f"""
SELECT {ASSIGNMENT.sql}, {ITEM.sql}, {PROMPT.sql}, EXISTS (SELECT 1 FROM curation_judgment j WHERE j.assignment_id = a.id)
FROM curation_assignment a JOIN curation_item i ON i.id = a.item_id JOIN generation_prompt p ON p.id = i.prompt_id
WHERE a.id = ANY(%s::bigint[]) AND a.state = 'leased' AND a.expires_at > statement_timestamp() ORDER BY a.id
"""
SAMPLE = Columns(Sample, "s")
SHOWN = f"""
SELECT shown.item_id, shown.slot, {SAMPLE.sql}, {PROMPT.sql}
FROM curation_itemsample shown JOIN generation_sample s ON s.id = shown.sample_id JOIN generation_prompt p ON p.id = s.prompt_id
WHERE shown.item_id = ANY(%s::bigint[])
"""


def lock_place(slug: str, rater: User) -> CampaignRater | None:
    """The rater's place in the campaign, locked; None where they have none."""
    rows = fetch_prepared(LOCK_PLACE, [slug, rater.pk])
    return PLACE.read(rows[0]) if rows else None


def as_it_is(pk: int) -> Any:
    """The campaign as the database has it `now`, with `has_gold`, and the newest revisions (see assignments.Lease)."""
    (row,) = fetch_prepared(AS_IT_IS, [pk])
    campaign: Any = CAMPAIGN.read(row)
    campaign.now, campaign.has_gold, campaign.newest_guidelines, campaign.newest_questions = row[len(CAMPAIGN) :]
    return campaign


def in_hand(campaign: Campaign, rater: User, count: int, *, only_gold: bool) -> list[int]:
    """The ids of the rater's live assignments that are still wanted, at most `count`."""
    return [pk for (pk,) in fetch_prepared(IN_HAND, [rater.pk, campaign.pk, only_gold, count])]


def no_longer_held(rater: User, pks: Sequence[int]) -> list[int]:
    """Those of these assignments (ids) that this rater is through with, on whatever device, or that are nobody's."""
    held = {pk for (pk,) in fetch_prepared(STILL_HELD, [list(pks), rater.pk])} if pks else set()
    return [pk for pk in pks if pk not in held]


def with_samples(pks: Sequence[int]) -> list[Assignment]:
    """Those of these assignments (ids) whose lease is live, in the order in which they were handed out, with `.item.prompt`,
    `.shown` (samples with their prompts, from left to right) and `.chain` (judgments of before an undo, the newest first)."""
    rows, judged = [], []
    for row in fetch_prepared(HELD, [list(pks)]):
        assignment: Any = ASSIGNMENT.read(row)
        assignment.item = ITEM.read(row, len(ASSIGNMENT))
        assignment.item.prompt = PROMPT.read(row, len(ASSIGNMENT) + len(ITEM))
        rows.append(assignment)
        if row[-1]:
            judged.append(assignment.pk)
    samples = {(row[0], row[1]): _sample(row) for row in fetch_prepared(SHOWN, [[row.item_id for row in rows]])}
    chains: defaultdict[int, list[Judgment]] = defaultdict(list)
    if judged:
        for judgment in Judgment.objects.filter(assignment__in=judged, superseded_by__isnull=True):
            chains[judgment.assignment_id].append(judgment)
    for assignment in rows:
        assignment.shown = [samples[assignment.item_id, slot] for slot in assignment.order]
        assignment.chain = chains[assignment.pk]
    return rows


def _sample(row: Sequence[Any]) -> Sample:
    sample = SAMPLE.read(row, 2)
    sample.prompt = PROMPT.read(row, 2 + len(SAMPLE))
    return sample
