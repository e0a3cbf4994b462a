"""Assignments: which items a rater gets next. Many raters ask at once; no item goes out more often than it is wanted."""

import random
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, Prefetch
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from accounts.models import User
from curation.models import (
    Assignment,
    AssignmentState,
    Campaign,
    CampaignKind,
    CampaignRater,
    CampaignState,
    Item,
    ItemSample,
    Judgment,
)

MAX_COUNT = 50


class LeaseRefused(Exception):
    """This person cannot lease here now; the message is for a person."""


def lease_items(campaign: Campaign, rater: User, count: int) -> list[Assignment]:
    """Up to `count` (1 to 50) assignments for this rater: those still held, renewed, and then new ones, in the campaign's order.

    A reload therefore gives the same items again, and so does a second tab. An empty list means that nothing is left for
    this rater. The assignments come with `.item.prompt`, `.shown` (samples from left to right) and `.chain` (judgments
    of before an undo, the newest first). Raises LeaseRefused unless the campaign is open and the person one of its raters.
    """
    count = min(max(count, 1), MAX_COUNT)
    with transaction.atomic():
        # One rater's requests queue up behind this row, so that two tabs are handed the same items.
        place = CampaignRater.objects.filter(campaign=campaign, rater=rater, removed_at=None)
        if place.select_for_update(no_key=True).first() is None or not (rater.is_superuser or rater.has_role("rater")):
            raise LeaseRefused("You are not one of the raters of this campaign.")
        state = Campaign.objects.filter(pk=campaign.pk).values_list("state", flat=True).get()
        if state != CampaignState.OPEN:
            raise LeaseRefused(f"This campaign is {CampaignState(state).label.lower()}: nothing is handed out.")
        held = _held(campaign, rater, count)
        wanted = count - len(held)
        new = _claim(campaign, rater, wanted) if wanted > 0 else []
        # Items are locked before assignments, here as where judgments come in, so that neither waits for the other.
        Assignment.objects.live().filter(pk__in=held).update(expires_at=_expiry(campaign))
    return _with_samples([*held, *new])


def left_for(campaign: Campaign, rater: User) -> int:
    """How many items this rater could still judge now, those held included."""
    own = Assignment.objects.live().filter(rater=rater, item__campaign=campaign, item__is_open=True).count()
    return own + campaign.items.free_for(rater, campaign.overlap).count()


def done_by(campaign: Campaign, rater: User) -> int:
    """How many items this rater is through with: judged, skipped or flagged."""
    through = [AssignmentState.JUDGED, AssignmentState.RELEASED]
    return Assignment.objects.filter(rater=rater, item__campaign=campaign, state__in=through).count()


def _held(campaign: Campaign, rater: User, count: int) -> list[int]:
    return list(
        Assignment.objects.live()
        .filter(rater=rater, item__campaign=campaign, item__is_open=True)
        .order_by("item__position")
        .values_list("pk", flat=True)[:count]
    )


def _claim(campaign: Campaign, rater: User, wanted: int) -> list[int]:
    """Ids of new assignments, at most `wanted`; empty only where nothing is free."""
    free = campaign.items.free_for(rater, campaign.overlap)
    # At first items that others are busy with are passed over. Where those are all that is left, their answer is waited for.
    for skip_locked in (True, True, False, False, False):
        before = transaction.savepoint()
        lock = free.select_for_update(skip_locked=skip_locked, of=("self",), no_key=True)
        locked = list(lock.order_by("position").values_list("pk", flat=True)[:wanted])
        # A row that another rater leased between the start of that statement and our lock looks free in its snapshot; the
        # next statement has a newer one.
        chosen = list(free.filter(pk__in=locked).order_by("position")) if locked else []
        if chosen:
            return _assign(campaign, rater, chosen)
        # Locks that came to nothing are given back: whoever waits while holding some might be waited for in turn.
        transaction.savepoint_rollback(before)
        if not locked and not skip_locked:
            break
    return []


def _assign(campaign: Campaign, rater: User, items: list[Item]) -> list[int]:
    pks = [item.pk for item in items]
    # Leases of this rater that ran out are taken up again, with the sides that were shown before.
    mine = Assignment.objects.filter(item__in=pks, rater=rater)
    again = set(mine.values_list("item_id", flat=True))
    if again:
        mine.update(state=AssignmentState.LEASED, leased_at=Now(), expires_at=_expiry(campaign))
    fresh = [item for item in items if item.pk not in again]
    orders = _orders(campaign, rater, fresh)
    Assignment.objects.bulk_create(
        Assignment(item=item, rater=rater, order=order, expires_at=_expiry(campaign))
        for item, order in zip(fresh, orders, strict=True)
    )
    return list(mine.values_list("pk", flat=True))


def _orders(campaign: Campaign, rater: User, items: list[Item]) -> list[list[int]]:
    """The slots from left to right for each item. In a comparison each rater sees the baseline left as often as right:
    of two successive assignments, which one is swapped is drawn, and the other is not."""
    if campaign.kind in (CampaignKind.ALIGNMENT, CampaignKind.STYLE):
        return [[0] for _ in items]
    before = Assignment.objects.filter(rater=rater, item__campaign=campaign).count()
    if campaign.kind == CampaignKind.COMPARE:
        return [_sides(campaign, rater, number) for number in range(before, before + len(items))]
    slots = dict(ItemSample.objects.filter(item__in=items).values_list("item").annotate(slots=Count("pk")))
    return [random.sample(range(slots[item.pk]), slots[item.pk]) for item in items]


def _sides(campaign: Campaign, rater: User, number: int) -> list[int]:
    # Keyed: whoever knows this code and the numbers could otherwise work out which side is the candidate.
    seed = salted_hmac("curation.sides", f"{campaign.pk}:{rater.pk}:{number // 2}").digest()[0]
    return [1, 0] if (seed + number) % 2 else [0, 1]


def _expiry(campaign: Campaign) -> Any:
    return Now() + timedelta(seconds=campaign.lease_seconds)


def _with_samples(pks: Collection[int]) -> list[Assignment]:
    shown = ItemSample.objects.select_related("sample").order_by("slot")
    chain = Judgment.objects.filter(superseded_by__isnull=True)
    rows = (
        Assignment.objects.live()
        .filter(pk__in=pks)
        .select_related("item", "item__prompt")
        .prefetch_related(
            Prefetch("item__item_samples", queryset=shown), Prefetch("judgments", queryset=chain, to_attr="chain")
        )
        .order_by("item__position")
    )
    for row in rows:
        by_slot = {entry.slot: entry.sample for entry in row.item.item_samples.all()}
        row.shown = [by_slot[slot] for slot in row.order]  # type: ignore[attr-defined]
    return list(rows)
