"""Probes: items that a rater is handed again, without being told, to see whether they say the same; in a comparison with the
sides swapped, which shows whether they lean to one side.

A probe is an item of its own, for one rater, that shows the samples of one that this rater judged. As gold does, it measures
the rater and has neither a place to fill nor a verdict: what is said of it is kept like any judgment, and decides nothing.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from django.db import transaction
from django.db.models import Exists, OuterRef, Subquery

from accounts.models import User
from curation import tallies
from curation.gold import GoldRefused, next_position
from curation.models import (
    Assignment,
    Campaign,
    CampaignEvent,
    CampaignKind,
    Item,
    ItemSample,
    Judgment,
    Probe,
    TallyKind,
)
from curation.statistics import Share

MOST_PERCENT = 10
# So many judgments of a rater lie between an item and its probe at least, so that it is not recognised.
LEAST_BETWEEN = 30
# Which item comes again is drawn from so many that may.
DRAWN_FROM = 200
OF_CONSISTENCY = (TallyKind.TWICE, TallyKind.SAME, TallyKind.SIDED, TallyKind.SIDED_SQUARES, TallyKind.LEFT)


class Consistency(NamedTuple):
    """How often a rater said the same of an item both times, on every question, and, in a comparison, how often they chose the
    left side of the times that they chose a side, both times counted."""

    same: Share
    left: Share


@transaction.atomic
def set_probe_percent(campaign: Campaign, percent: int, *, by: User) -> None:
    """How much of what a rater gets they judged before, 0 to 10%. Raises GoldRefused."""
    if not 0 <= percent <= MOST_PERCENT:
        raise GoldRefused(f"Between 0 and {MOST_PERCENT}% of what a rater gets can be asked again.")
    if percent and campaign.kind == CampaignKind.PICK:
        raise GoldRefused("A pick asks nothing again: its raters remember candidates that they chose among.")
    if Campaign.objects.filter(pk=campaign.pk).exclude(probe_percent=percent).update(probe_percent=percent):
        CampaignEvent.objects.create(campaign=campaign, kind="probe rate", by=by, detail={"percent": percent})


def to_ask_again(campaign: Campaign, rater: User, count: int) -> list[Item]:
    """Up to `count` items, at random, that this rater answered long enough ago and was not asked again."""
    # Read off the index alone: the planner joins all that a rater ever said before it takes the newest.
    newest = Judgment.objects.filter(rater=rater).order_by("-received_at").values_list("pk", flat=True)
    old = list(newest[LEAST_BETWEEN : LEAST_BETWEEN + DRAWN_FROM])
    asked = Probe.objects.filter(of=OuterRef("item"), rater=rater)
    mine = Judgment.objects.final().filter(~Exists(asked), pk__in=old, item__campaign=campaign, item__is_gold=False)
    able = list(mine.order_by().values_list("item_id", flat=True))
    return list(Item.objects.filter(pk__in=random.sample(able, min(count, len(able)))))


def make_probes(campaign: Campaign, rater: User, items: Sequence[Item]) -> dict[int, Item]:
    """Item id -> its probe for this rater. The caller, in a transaction, waits for no lock afterwards."""
    if not items:
        return {}
    probes = Item.objects.bulk_create(
        Item(
            campaign=campaign,
            position=position,
            prompt_id=item.prompt_id,
            bucket=item.bucket,
            is_open=False,
            is_gold=True,
        )
        for position, item in enumerate(items, next_position(campaign))
    )
    of = {item.pk: probe for item, probe in zip(items, probes, strict=True)}
    Probe.objects.bulk_create(
        Probe(item=probe, of=item, rater=rater) for item, probe in zip(items, probes, strict=True)
    )
    ItemSample.objects.bulk_create(
        ItemSample(item=of[row.item_id], slot=row.slot, sample_id=row.sample_id)
        for row in ItemSample.objects.filter(item__in=of).order_by("item", "slot")
    )
    return of


def swapped_sides(rater: User, items: Sequence[Item]) -> dict[int, list[int]]:
    """Probe item id -> the slots from left to right, the other way round than this rater saw them at first."""
    first = Assignment.objects.filter(item=OuterRef("of"), rater=rater)
    rows = Probe.objects.filter(item__in=items, rater=rater).annotate(shown=Subquery(first.values("order")[:1]))
    return {probe: shown[::-1] for probe, shown in rows.values_list("item_id", "shown")}


def consistency_by_rater(campaign: Campaign) -> dict[int, Consistency]:
    """Rater id -> Consistency, over the probes whose both answers stand.

    Both times are about the same two pictures, so a probe is worth one choice of the left side, however often a side was chosen in it
    (Kish 1965, as in `agreement_of`).
    """
    counts: defaultdict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys(OF_CONSISTENCY, 0))
    for name, (n, _) in tallies.read([campaign.pk], *OF_CONSISTENCY).items():
        counts[name.rater_id][name.what] = n
    return {
        rater: Consistency(Share(each[TallyKind.SAME], each[TallyKind.TWICE]), _leaning(each))
        for rater, each in counts.items()
    }


def _leaning(counts: Mapping[str, int]) -> Share:
    chosen, squares = counts[TallyKind.SIDED], counts[TallyKind.SIDED_SQUARES]
    return Share(counts[TallyKind.LEFT], chosen, chosen**2 / squares if squares else None)
