"""Gold: items whose answer is known. What a rater says of them measures the rater; they get no verdict and fill no place."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, Max, OuterRef, QuerySet
from django.db.models.functions import Now

from accounts.models import User
from curation import tallies
from curation.examples import shown_as_example
from curation.models import (
    Assignment,
    Campaign,
    CampaignEvent,
    CampaignKind,
    CampaignRater,
    CampaignState,
    GoldItem,
    Item,
    ItemSample,
    Probe,
    Question,
    Verdict,
)
from curation.rules import SIDES
from curation.verdicts import refresh_verdicts

MOST_AT_ONCE = 200
# Any constant, known to nobody else who takes advisory locks with two keys in this database.
POSITIONS_LOCK = 0x61_74_65_03


class GoldRefused(ValueError):
    """Gold that cannot be made as asked; the message is for a person."""


def known_choices(campaign: Campaign, question: Question) -> list[tuple[str, str]]:
    """(value, label) of what may be the known answer; in a comparison the sides by what they are, not by where they stand."""
    named = [(choice["value"], choice["label"]) for choice in question.choices]
    if not campaign.compares:
        return named
    is_set = campaign.kind == CampaignKind.SETS
    labels = (
        ("The baseline’s set", "The candidate’s set")
        if is_set
        else ("The baseline is better", "The candidate is better")
    )
    sides = list(zip(SIDES, labels, strict=True))
    return sides + [(value, label) for value, label in named if value not in ("left", "right")]


@transaction.atomic
def mark_gold(item: Item, answers: Mapping[str, str], *, by: User) -> GoldItem:
    """Make an item of a campaign gold, or say anew what its answers are. Its judgments stay and its verdict goes.

    Raises GoldRefused for answers that its questions do not have, and where the item cannot be gold.
    """
    campaign = item.campaign
    if campaign.kind == CampaignKind.PICK:
        raise GoldRefused("A pick has no gold items: which of several is best has no one known answer.")
    if Probe.objects.filter(item=item).exists():
        raise GoldRefused("This item asks one rater again what they judged, so it cannot be gold.")
    _check_known(campaign, answers)
    locked = Item.objects.select_for_update(no_key=True).get(pk=item.pk)
    # Asked under the lock, which an item that becomes an example takes as well.
    if shown_as_example(locked.item_samples.values_list("sample", flat=True), campaign):
        raise GoldRefused("The guidelines show this sticker as an example, so raters know its answer. Choose another.")
    with tallies.kept([locked.pk]):
        gold = _say_known(locked, answers, by)
        Item.objects.filter(pk=locked.pk).update(is_gold=True, is_open=False, judged=0)
        Verdict.objects.filter(item=locked).delete()
    _note(campaign, by, marked=[locked.pk])
    gold.refresh_from_db()
    return gold


def _say_known(item: Item, answers: Mapping[str, str], by: User) -> GoldItem:
    gold = GoldItem.objects.filter(item=item).first()
    if gold is None:
        return GoldItem.objects.create(item=item, answers=dict(answers), created_by=by)
    changed: dict[str, Any] = {"answers": dict(answers), "created_by": by}
    if gold.retired_at is not None:
        # What came in while it was no gold item is not measured by it.
        changed |= {"retired_at": None, "created_at": Now()}
    GoldItem.objects.filter(pk=gold.pk).update(**changed)
    return gold


@transaction.atomic
def retire_gold(gold: GoldItem, *, by: User) -> bool:
    """Hand the item out as gold no more, and measure nobody by it. An item of the campaign's own is an ordinary one again, with
    the verdict that its judgments add up to. False where it was retired already."""
    item = Item.objects.select_for_update(of=("self",), no_key=True).select_related("campaign").get(pk=gold.item_id)
    with tallies.kept([item.pk]):
        if not GoldItem.objects.filter(pk=gold.pk, retired_at=None).update(retired_at=Now()):
            return False
        if gold.source_id is None:
            Item.objects.filter(pk=item.pk).update(is_gold=False)
            refresh_verdicts(item.campaign, [item])
    _note(item.campaign, by, retired=[item.pk])
    return True


@transaction.atomic
def set_gold_percent(campaign: Campaign, percent: int, *, by: User) -> None:
    """How much of what a rater gets is gold, 0 to 50%."""
    if not 0 <= percent <= 50:
        raise GoldRefused("Between 0 and 50% of what a rater gets can be gold.")
    if Campaign.objects.filter(pk=campaign.pk).exclude(gold_percent=percent).update(gold_percent=percent):
        CampaignEvent.objects.create(campaign=campaign, kind="gold rate", by=by, detail={"percent": percent})


def sources_for(campaign: Campaign, user: User) -> list[Campaign]:
    """Closed campaigns of the same kind that ask the same, and that this person may see; the newest first."""
    visible = Campaign.objects.visible_to(user).filter(kind=campaign.kind, state=CampaignState.CLOSED)
    rubric, looks = _rubric(campaign), _looks(campaign)
    rows = visible.exclude(pk=campaign.pk).prefetch_related("questions").order_by("-pk")[:100]
    return [row for row in rows if _rubric(row) == rubric and _looks(row) == looks]


@transaction.atomic
def copy_gold(campaign: Campaign, source: Campaign, count: int, *, by: User) -> int:
    """Take up to `count` items of a closed campaign as gold, at random, as many of each answer as can be; returns how many.

    Only items are taken that at least two raters answered, and all alike; that answer is the known one. Left out is what shows
    a sample that this campaign has already, or that its guidelines show, and what is of a size that no own item of the campaign
    has, by which it would be known. Raises GoldRefused.
    """
    if source.state != CampaignState.CLOSED or source.kind != campaign.kind or _rubric(source) != _rubric(campaign):
        raise GoldRefused("Gold can be taken from closed campaigns of the same kind that ask the same questions.")
    if _looks(source) != _looks(campaign):
        raise GoldRefused("Gold can be taken from sets of as many pictures, of one prompt or of several as here.")
    if not 1 <= count <= MOST_AT_ONCE:
        raise GoldRefused(f"Between 1 and {MOST_AT_ONCE} items can be taken at once.")
    Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
    sizes = _sizes(campaign.items.filter(gold__source=None))
    if not sizes & _sizes(source.items.all()):
        known = ", ".join(f"{width} × {height}" for width, height in sorted(sizes))
        raise GoldRefused(f"Gold can be taken from campaigns with images of the same size, which is {known} px here.")
    found = _unanimous(campaign, source, count, sizes)
    originals = Item.objects.in_bulk([pk for pk, _ in found])
    start = next_position(campaign)
    items = Item.objects.bulk_create(
        Item(
            campaign=campaign,
            position=position,
            prompt_id=originals[pk].prompt_id,
            bucket=originals[pk].bucket,
            is_open=False,
            is_gold=True,
        )
        for position, (pk, _) in enumerate(found, start)
    )
    GoldItem.objects.bulk_create(
        GoldItem(item=item, answers=answers, source_id=pk, created_by=by)
        for item, (pk, answers) in zip(items, found, strict=True)
    )
    copies = {pk: item for item, (pk, _) in zip(items, found, strict=True)}
    ItemSample.objects.bulk_create(
        ItemSample(item=copies[row.item_id], slot=row.slot, sample_id=row.sample_id)
        for row in ItemSample.objects.filter(item__in=copies).order_by("item", "slot")
    )
    if items:
        _note(campaign, by, marked=[item.pk for item in items], source=source.pk)
    return len(items)


def next_position(campaign: Campaign) -> int:
    """The first position that no item of the campaign has. Until the end of the transaction nobody else is given one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [POSITIONS_LOCK, campaign.pk % 2**31])
    return (campaign.items.aggregate(last=Max("position"))["last"] or 0) + 1


def active_gold(campaign: Campaign) -> QuerySet[Item]:
    """The campaign's gold items that are handed out and count."""
    return campaign.items.filter(is_gold=True, gold__isnull=False, gold__retired_at=None)


def unseen_gold(campaign: Campaign, rater: User) -> QuerySet[Item]:
    """The gold items that this rater never had, neither here nor where they came from, and did not make."""
    mine = Assignment.objects.filter(rater=rater)
    return (
        active_gold(campaign)
        .filter(
            ~Exists(mine.filter(item=OuterRef("pk"))),
            ~Exists(mine.filter(item=OuterRef("gold__source"))),
        )
        .exclude(gold__created_by=rater)
    )


def is_hidden_from(campaign: Campaign, user: User) -> bool:
    """Whether this person rates here, and so must not see known answers."""
    if campaign.state == CampaignState.CLOSED:
        return False
    return CampaignRater.objects.filter(campaign=campaign, rater=user, removed_at=None).exists()


def _check_known(campaign: Campaign, answers: Mapping[str, str]) -> None:
    questions = {question.name: question for question in campaign.questions.all()}
    if not answers:
        raise GoldRefused("A gold item needs the known answer to at least one question.")
    for name, value in answers.items():
        if name not in questions or value not in dict(known_choices(campaign, questions[name])):
            raise GoldRefused("One of these is no answer to a question of this campaign.")


def _rubric(campaign: Campaign) -> list[tuple[str, list[str]]]:
    return [(question.name, sorted(question.values)) for question in campaign.questions.all()]


def _looks(campaign: Campaign) -> tuple[bool, int]:
    """What tells items of sets apart at a glance: whether they show several prompts, and how many pictures. Nothing elsewhere."""
    if campaign.kind != CampaignKind.SETS:
        return False, 0
    first = campaign.items.order_by("position").first()
    return campaign.many_prompts, first.item_samples.count() if first else 0


def _sizes(items: QuerySet[Item]) -> set[tuple[int, int]]:
    """(width, height) of the images that these items show."""
    samples = ItemSample.objects.filter(item__in=items.order_by()).order_by()
    return set(samples.values_list("sample__width", "sample__height").distinct())


def _unanimous(
    campaign: Campaign, source: Campaign, count: int, sizes: Collection[tuple[int, int]]
) -> list[tuple[int, dict[str, str]]]:
    """(item, answers) of what all raters of the source answered alike, of images of these sizes, the answers in turn."""
    widths, heights = zip(*sizes, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT item_id, answers::text FROM (
                SELECT v.item_id, known.answers, row_number() OVER (PARTITION BY known.answers ORDER BY random()) AS turn
                FROM curation_verdict v JOIN curation_item i ON i.id = v.item_id,
                     LATERAL (SELECT jsonb_object_agg(q.key, a.key) AS answers, bool_and(a.of = 1) AS alike
                              FROM jsonb_each(v.tallies) q,
                                   LATERAL (SELECT min(key) AS key, count(*) AS of FROM jsonb_object_keys(q.value) key) a
                              WHERE a.of > 0) known
                WHERE v.judgments > 1 AND i.campaign_id = %s AND known.alike
                  AND NOT EXISTS (SELECT 1 FROM curation_itemsample theirs
                                  JOIN curation_itemsample ours ON ours.sample_id = theirs.sample_id
                                  JOIN curation_item here ON here.id = ours.item_id AND here.campaign_id = %s
                                  WHERE theirs.item_id = v.item_id)
                  AND NOT EXISTS (SELECT 1 FROM curation_itemsample theirs
                                  JOIN curation_guidelineexample shown ON theirs.sample_id IN (shown.sample_id, shown.beside_id)
                                  JOIN curation_guidelinerevision r ON r.id = shown.revision_id AND r.campaign_id = %s
                                  WHERE theirs.item_id = v.item_id)
                  AND NOT EXISTS (SELECT 1 FROM curation_itemsample theirs JOIN generation_sample s ON s.id = theirs.sample_id
                                  WHERE theirs.item_id = v.item_id
                                    AND (s.width, s.height) NOT IN (SELECT * FROM unnest(%s::int[], %s::int[])))) found
            ORDER BY turn, random() LIMIT %s
            """,
            [source.pk, campaign.pk, campaign.pk, list(widths), list(heights), count],
        )
        return [(pk, json.loads(answers)) for pk, answers in cursor.fetchall()]


def _note(campaign: Campaign, by: User, **detail: Collection[int] | int) -> None:
    CampaignEvent.objects.create(campaign=campaign, kind="gold", by=by, detail=detail)
