"""Exclusions: a curator's word that what a rater said in a campaign does not count, with the reason, and that it counts again.

Nothing is deleted: the judgments stay as they are and are shown as excluded. `CampaignRater.excluded` is what holds now, and
each assignment of the rater carries it too (`Assignment.excluded`), written item by item under the item's lock together with
the verdict that follows, so that every item is at any moment counted one way. New assignments begin with what holds.

Reports of something broken are no opinion of an item, and stay before curators.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from django.db import transaction

from accounts.models import User
from curation import recounts, tallies
from curation.models import (
    Assignment,
    AssignmentState,
    Campaign,
    CampaignEvent,
    CampaignRater,
    Item,
    Judgment,
    Outcome,
    RaterExclusion,
    Verdict,
)
from curation.order import rerank
from curation.rules import RuleRefused, read_rule
from curation.verdicts import refresh_verdicts
from jobs.context import JobContext
from jobs.models import Job

EXCLUSION_KIND = "curation.exclude_rater"
# Up to so many items are counted while somebody waits for the page.
MOST_AT_ONCE = 1000
CHUNK = 500


class ExclusionRefused(ValueError):
    """The rater's judgments count, or do not, as before; the message says why, for a person."""


class Applied(NamedTuple):
    """What became of it: `pending` of the items that the rater judged are short of judgments now. Where a `job` does it, none
    are known yet."""

    pending: int
    job: Job | None = None


def set_excluded(place: CampaignRater, *, excluded: bool, reason: str, by: User) -> Applied:
    """Let what this rater said, and says from now on, not count in the campaign, or count again. Raises ExclusionRefused.

    Items that are short of judgments by it are open again; a closed campaign stays closed.
    """
    reason = " ".join(reason.split())
    if not reason or len(reason) > 300:
        raise ExclusionRefused("Say in a sentence why, in up to 300 characters.")
    campaign = place.campaign
    with transaction.atomic():
        try:
            recounts.lock(campaign)
        except RuleRefused as refusal:
            raise ExclusionRefused(refusal.args[0]) from refusal
        # Whoever leases for this rater holds the same row: there is no assignment that is made meanwhile and not seen here.
        if not CampaignRater.objects.filter(pk=place.pk).exclude(excluded=excluded).update(excluded=excluded):
            how = "excluded already" if excluded else "not excluded any more"
            raise ExclusionRefused(f"What {place.rater} said is {how}.")
        place.excluded = excluded
        RaterExclusion.objects.create(campaign=campaign, rater=place.rater, excluded=excluded, reason=reason, by=by)
        detail = {"rater": place.rater_id, "reason": reason}
        CampaignEvent.objects.create(
            campaign=campaign, kind="excluded" if excluded else "taken in", by=by, detail=detail
        )
        if _is_quick(place):
            return Applied(_apply(place, by, lambda done, total: None, transaction.atomic))
        label = f"{'Exclude' if excluded else 'Take in again'} what {place.rater} said in “{campaign}”"
        job = recounts.begin_job(campaign, EXCLUSION_KIND, {"place": place.pk}, label=label, by=by)
        return Applied(0, job)


def exclude_by_job(context: JobContext) -> dict[str, Any]:
    """The handler: bring the items of the payload's rater into line with what holds, chunk by chunk."""
    place = CampaignRater.objects.select_related("campaign", "rater").get(pk=context.payload["place"])
    by = User.objects.get(pk=context.payload["by"])

    def step(done: int, total: int) -> None:
        context.check()
        context.progress(done, total, "items")

    return {"pending": _apply(place, by, step, context.fenced)}


def reasons_of(campaign: Campaign) -> dict[int, str]:
    """Rater id -> why their judgments were excluded, the last time that they were."""
    rows = (
        RaterExclusion.objects.filter(campaign=campaign, excluded=True).order_by("rater_id", "-pk").distinct("rater_id")
    )
    return dict(rows.values_list("rater_id", "reason"))


def tell_excluded(campaign: Campaign, judgments: Iterable[Judgment]) -> None:
    """Give each of these judgments of the campaign, which come with their assignment, `.excluded`: why it does not count, in
    words; empty where it does."""
    rows = list(judgments)
    reasons = reasons_of(campaign) if any(row.assignment.excluded for row in rows) else {}
    for row in rows:
        reason = reasons.get(row.rater_id)
        words = f"excluded: {reason}" if reason else "excluded"
        row.excluded = words if row.assignment.excluded else ""  # type: ignore[attr-defined]


def _is_quick(place: CampaignRater) -> bool:
    if len(_to_change(place)[: MOST_AT_ONCE + 1]) > MOST_AT_ONCE:
        return False
    decided = Verdict.objects.filter(item__campaign=place.campaign_id).values_list("pk")
    return not _asks_for_recount(place.campaign) or len(decided[: MOST_AT_ONCE + 1]) <= MOST_AT_ONCE


def _asks_for_recount(campaign: Campaign) -> bool:
    """An estimate rests on all judgments; and what waits for more when a campaign closes meanwhile is decided without them."""
    return read_rule(campaign.rule).is_estimated or campaign.most > campaign.overlap


def _to_change(place: CampaignRater) -> Sequence[int]:
    rows = Assignment.objects.filter(
        rater=place.rater_id, item__campaign=place.campaign_id, excluded=not place.excluded
    )
    return rows.order_by("item_id").values_list("item_id", flat=True)  # type: ignore[return-value]


def _apply(place: CampaignRater, by: User, step: Callable[[int, int], None], block: Callable[[], Any]) -> int:
    """Change what has not been changed yet, in blocks, each a transaction, and say how many of the items are pending then."""
    items = list(_to_change(place))
    for done in range(0, len(items), CHUNK):
        step(done, len(items))
        with block():
            _change(place, items[done : done + CHUNK])
    campaign = Campaign.objects.get(pk=place.campaign_id)
    if _asks_for_recount(campaign):
        recounts.run(campaign, by, step, block)
    judged = Assignment.objects.filter(
        rater=place.rater_id, item__campaign=campaign, item__is_gold=False, state=AssignmentState.JUDGED
    )
    with block():
        pending = Verdict.objects.filter(outcome=Outcome.PENDING, item__in=judged.values("item")).count()
        detail = {"rater": place.rater_id, "excluded": place.excluded, "pending": pending}
        CampaignEvent.objects.create(campaign=campaign, kind="exclusion counted", by=by, detail=detail)
    return pending


def _change(place: CampaignRater, pks: list[int]) -> None:
    """Write on the rater's assignments of these items what holds, and count the items anew."""
    campaign = Campaign.objects.get(pk=place.campaign_id)
    # Always in the same order, here as where judgments come in.
    locks = Item.objects.select_for_update(no_key=True).filter(pk__in=pks)
    items = {item.pk: item for item in locks.order_by("pk")}
    mine = Assignment.objects.filter(rater=place.rater_id, item__in=items)
    # By number, as where judgments come in and leases are renewed, which locks no items.
    numbers = list(mine.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))
    judged = set(mine.filter(state=AssignmentState.JUDGED).values_list("item_id", flat=True))
    with tallies.kept(items):
        Assignment.objects.filter(pk__in=numbers).update(excluded=place.excluded)
        # Where the rater said nothing that stands, no verdict changes, but perhaps which item comes next.
        refresh_verdicts(campaign, [item for pk, item in items.items() if pk in judged and not item.is_gold])
        rerank(campaign, [pk for pk in items if pk not in judged])
