"""Recounts: all verdicts of a campaign anew, because its rule was changed or is one that is estimated over all judgments. The
latter happens by itself while raters are at work (`estimate_due`, every minute).

A small campaign is recounted at once; a large one by a job, while judgments go on coming in: each of them is read by the rule
that the campaign has by then.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from accounts.models import User
from curation import tallies
from curation.dawid_skene import Numbers, estimate
from curation.models import (
    Campaign,
    CampaignEvent,
    CampaignKind,
    CampaignState,
    Estimate,
    Judgment,
    Question,
    TallyKind,
    Verdict,
)
from curation.rules import PICKED_BY_HALF, Rule, RuleKind, RuleRefused, read_rule
from curation.verdicts import preferred, refresh_verdicts
from jobs.context import JobContext
from jobs.models import OPEN_STATES, Job, JobState
from jobs.queue import enqueue

logger = logging.getLogger(__name__)

RECOUNT_KIND = "curation.recount_verdicts"
# Up to so many items with a verdict are recounted while somebody waits for the page.
MOST_AT_ONCE = 1000
CHUNK = 500
# An estimate is made anew by itself after so many judgments, at least, and a part of those of before; and so long after the last.
LEAST_NEW, NEW_PART = 20, 20
LEAST_APART = timedelta(minutes=5)


def set_rule(campaign: Campaign, rule: Rule, *, by: User) -> Job | None:
    """Let the campaign's judgments become verdicts by this rule, all of them anew. Returns the job where that takes one.

    Raises RuleRefused where the rule cannot be followed here, or while a recount is on its way.
    """
    check_rule(rule, campaign.overlap)
    if (campaign.kind == CampaignKind.PICK) != (rule == PICKED_BY_HALF):
        raise RuleRefused(f"{PICKED_BY_HALF.in_words()}: that is the rule of every pick, and of nothing else.")
    with transaction.atomic():
        lock(campaign)
        before = campaign.rule
        if before == rule.name:
            return None
        campaign.rule = rule.name
        campaign.save(update_fields=["rule"])
        CampaignEvent.objects.create(campaign=campaign, kind="rule", by=by, detail={"from": before, "to": rule.name})
        return _recount(campaign, by)


def recount(campaign: Campaign, *, by: User) -> Job | None:
    """Count all verdicts anew, and so estimate anew where the rule is an estimated one. Returns the job where that takes one.

    Raises RuleRefused while a recount is on its way.
    """
    with transaction.atomic():
        lock(campaign)
        return _recount(campaign, by)


def check_rule(rule: Rule, overlap: int) -> None:
    """Raises RuleRefused where a campaign of this overlap cannot follow the rule."""
    if rule.is_estimated and overlap < 2:
        raise RuleRefused(
            "Dawid and Skene's model learns from raters who judge the same items: it needs two judgments of each."
        )


def recount_by_job(context: JobContext) -> dict[str, Any]:
    """The handler: recount the campaign of the payload, chunk by chunk."""
    campaign = Campaign.objects.get(pk=context.payload["campaign"])
    by = None if context.payload["by"] is None else User.objects.get(pk=context.payload["by"])

    def step(done: int, total: int) -> None:
        context.check()
        context.progress(done, total, "items")

    return {"verdicts": run(campaign, by, step, context.fenced)}


def lock(campaign: Campaign) -> None:
    """Hold the campaign and read its rule. Raises RuleRefused while its verdicts are being counted anew."""
    locked = (
        Campaign.objects.select_for_update(no_key=True, of=("self",)).select_related("recount_job").get(pk=campaign.pk)
    )
    if locked.recount_job is not None and locked.recount_job.is_open:
        raise RuleRefused("The verdicts of this campaign are being counted anew. Wait until that is done.")
    campaign.rule = locked.rule


def _recount(campaign: Campaign, by: User) -> Job | None:
    if _is_small(campaign):
        run(campaign, by, lambda done, total: None, transaction.atomic)
        # What failed before is made up for.
        campaign.recount_job = None
        campaign.save(update_fields=["recount_job"])
        return None
    return _begin_recount(campaign, by)


def _is_small(campaign: Campaign) -> bool:
    return len(_with_verdicts(campaign).values_list("pk")[: MOST_AT_ONCE + 1]) <= MOST_AT_ONCE


def _begin_recount(campaign: Campaign, by: User | None) -> Job:
    return begin_job(
        campaign, RECOUNT_KIND, {"campaign": campaign.pk}, label=f"Count the verdicts of “{campaign}” anew", by=by
    )


def begin_job(campaign: Campaign, kind: str, payload: Mapping[str, Any], *, label: str, by: User | None) -> Job:
    """A job that counts verdicts anew in the campaign, which the caller holds by `lock`: until it is done no other begins."""
    job = enqueue(kind, {**payload, "by": by and by.pk}, label=label, url=campaign.get_absolute_url(), created_by=by)
    campaign.recount_job = job
    campaign.save(update_fields=["recount_job"])
    return job


def _with_verdicts(campaign: Campaign) -> Any:
    return campaign.items.filter(Exists(Verdict.objects.filter(item=OuterRef("pk")))).order_by("pk")


def run(campaign: Campaign, by: User | None, step: Callable[[int, int], None], block: Callable[[], Any]) -> int:
    """Recount in blocks, each a transaction, and say how many verdicts there are now. What nobody asked for is no event."""
    rule = read_rule(campaign.rule)
    with block():
        # A moment before the judgments are read: what comes in later is not in the estimate.
        Campaign.objects.filter(pk=campaign.pk).update(recounted_at=Now())
        came = _judgments(campaign)
    if rule.is_estimated:
        _keep(campaign, [found.kept for found in estimate_tables(campaign)], block)
    counted = _with_verdicts(campaign)
    total, done, last = counted.count(), 0, 0
    while True:
        step(done, max(total, done))
        with block():
            items = list(counted.filter(pk__gt=last).select_for_update(no_key=True, of=("self",))[:CHUNK])
            if not items:
                Campaign.objects.filter(pk=campaign.pk).update(recounted_judgments=came)
                if by is not None:
                    CampaignEvent.objects.create(campaign=campaign, kind="recounted", by=by, detail={"rule": rule.name})
                return done
            with tallies.kept({item.pk for item in items}):
                refresh_verdicts(campaign, items)
        done, last = done + len(items), items[-1].pk


def estimate_due() -> list[Campaign]:
    """Estimate anew what is to be estimated and has had enough judgments since the last time, large campaigns by a job of each;
    returns these campaigns.

    What fails is logged, and the other campaigns have their turn; after a job that failed a person begins the next. The next is due at a twentieth more judgments, so that all the estimates of a campaign together cost as much as some dozens of
    the last, however large it grows.
    """
    done = []
    estimated = Campaign.objects.filter(state=CampaignState.OPEN, rule__startswith=f"{RuleKind.DAWID_SKENE.value}-")
    is_free = Q(recount_job=None) | ~Q(recount_job__state__in=[*OPEN_STATES, JobState.FAILED])
    for campaign in estimated.filter(is_free).order_by("pk"):
        least = max(LEAST_NEW, campaign.recounted_judgments // NEW_PART)
        if _judgments(campaign) < campaign.recounted_judgments + least:
            continue
        due = Q(recounted_at=None) | Q(recounted_at__lt=Now() - LEAST_APART)
        # Two at once: one of them finds it taken.
        if not Campaign.objects.filter(due, pk=campaign.pk).update(recounted_at=Now()):
            continue
        try:
            if _is_small(campaign):
                run(campaign, None, lambda done, total: None, transaction.atomic)
            else:
                with transaction.atomic():
                    lock(campaign)
                    _begin_recount(campaign, None)
        except Exception:
            logger.exception("The raters of campaign %s could not be looked at anew.", campaign.slug)
            continue
        done.append(campaign)
    return done


def _judgments(campaign: Campaign) -> int:
    return tallies.total([campaign.pk], TallyKind.SEEN)


def _keep(campaign: Campaign, estimates: Sequence[Estimate], block: Callable[[], Any]) -> None:
    with block():
        # The one by itself and one that somebody asked for may end at once: each replaces all of the other's rows.
        Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
        Estimate.objects.filter(campaign=campaign).delete()
        Estimate.objects.bulk_create(estimates)


@dataclass(frozen=True)
class Estimated:
    """One question: what is kept of the estimate, and (item ids, their posteriors [N, K])."""

    kept: Estimate
    items: list[int]
    posteriors: Numbers


def estimate_tables(campaign: Campaign) -> list[Estimated]:
    """By question, from all standing judgments; questions that nobody has answered are left out."""
    rows = list(
        Judgment.objects.standing()
        .filter(item__campaign=campaign, item__is_gold=False)
        .order_by("item_id", "rater_id")
        .values_list("item_id", "rater_id", "answers", "order")
    )
    found = (_estimate(campaign, question, rows) for question in campaign.questions.all())
    return [each for each in found if each is not None]


def _estimate(
    campaign: Campaign, question: Question, rows: list[tuple[int, int, dict[str, str], list[int]]]
) -> Estimated | None:
    compares = campaign.compares
    said = [
        (item, rater, preferred(answers[question.name], order) if compares else answers[question.name])
        for item, rater, answers, order in rows
        if question.name in answers
    ]
    if not said:
        return None
    items, raters, values = (
        {each: place for place, each in enumerate(sorted(set(column)))} for column in zip(*said, strict=True)
    )
    given = np.array([raters[rater] for _, rater, _ in said])
    result = estimate([items[item] for item, _, _ in said], given, [values[value] for _, _, value in said])
    kept = Estimate(
        campaign=campaign,
        question=question.name,
        answers=list(values),
        shares=result.shares.tolist(),
        tables={str(rater): table for rater, table in zip(raters, result.tables.tolist(), strict=True)},
        usual=np.average(result.tables, axis=0, weights=np.bincount(given)).tolist(),
        items=len(items),
    )
    return Estimated(kept, list(items), result.posteriors)
