"""Recounts: all verdicts of a campaign anew, because its rule was changed or is one that is estimated over all judgments.

A small campaign is recounted at once; a large one by a job, while judgments go on coming in: each of them is read by the rule
that the campaign has by then.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from accounts.models import User
from curation import tallies
from curation.dawid_skene import estimate
from curation.models import Campaign, CampaignEvent, CampaignKind, Judgment, Question, Verdict
from curation.rules import PICKED_BY_HALF, Posteriors, Rule, RuleRefused, read_rule
from curation.verdicts import preferred, refresh_verdicts
from jobs.context import JobContext
from jobs.models import Job
from jobs.queue import enqueue

RECOUNT_KIND = "curation.recount_verdicts"
# Up to so many items with a verdict are recounted while somebody waits for the page.
MOST_AT_ONCE = 1000
CHUNK = 500
# Likelihoods are kept to so many digits, which no threshold tells apart.
DIGITS = 4


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
    by = User.objects.get(pk=context.payload["by"])

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
    counted = _with_verdicts(campaign)
    if len(counted.values_list("pk")[: MOST_AT_ONCE + 1]) <= MOST_AT_ONCE:
        run(campaign, by, lambda done, total: None, transaction.atomic)
        return None
    return begin_job(
        campaign, RECOUNT_KIND, {"campaign": campaign.pk}, label=f"Count the verdicts of “{campaign}” anew", by=by
    )


def begin_job(campaign: Campaign, kind: str, payload: Mapping[str, Any], *, label: str, by: User) -> Job:
    """A job that counts verdicts anew in the campaign, which the caller holds by `lock`: until it is done no other begins."""
    job = enqueue(kind, {**payload, "by": by.pk}, label=label, url=campaign.get_absolute_url(), created_by=by)
    campaign.recount_job = job
    campaign.save(update_fields=["recount_job"])
    return job


def _with_verdicts(campaign: Campaign) -> Any:
    return campaign.items.filter(Exists(Verdict.objects.filter(item=OuterRef("pk")))).order_by("pk")


def run(campaign: Campaign, by: User, step: Callable[[int, int], None], block: Callable[[], Any]) -> int:
    """Recount in blocks, each a transaction, and say how many verdicts there are now."""
    rule = read_rule(campaign.rule)
    with block():
        # A moment before the judgments are read: what comes in later is not in the estimate.
        Campaign.objects.filter(pk=campaign.pk).update(recounted_at=Now())
    posteriors = estimate_posteriors(campaign) if rule.is_estimated else None
    counted = _with_verdicts(campaign)
    total, done, last = counted.count(), 0, 0
    while True:
        step(done, max(total, done))
        with block():
            items = list(counted.filter(pk__gt=last).select_for_update(no_key=True, of=("self",))[:CHUNK])
            if not items:
                CampaignEvent.objects.create(campaign=campaign, kind="recounted", by=by, detail={"rule": rule.name})
                return done
            with tallies.kept({item.pk for item in items}):
                refresh_verdicts(campaign, items, posteriors)
        done, last = done + len(items), items[-1].pk


def estimate_posteriors(campaign: Campaign) -> Mapping[int, Posteriors]:
    """Item id -> question -> choice -> how likely it is the true answer, from all standing judgments."""
    rows = list(
        Judgment.objects.standing()
        .filter(item__campaign=campaign, item__is_gold=False)
        .order_by("item_id", "rater_id")
        .values_list("item_id", "rater_id", "answers", "order")
    )
    found: dict[int, dict[str, Mapping[str, float]]] = {item: {} for item, _, _, _ in rows}
    for question in campaign.questions.all():
        for item, likely in _estimate(campaign, question, rows):
            found[item][question.name] = likely
    return found


def _estimate(
    campaign: Campaign, question: Question, rows: list[tuple[int, int, dict[str, str], list[int]]]
) -> Iterable[tuple[int, dict[str, float]]]:
    compares = campaign.compares
    said = [
        (item, rater, preferred(answers[question.name], order) if compares else answers[question.name])
        for item, rater, answers, order in rows
        if question.name in answers
    ]
    if not said:
        return []
    items, raters, values = (
        {each: place for place, each in enumerate(sorted(set(column)))} for column in zip(*said, strict=True)
    )
    result = estimate(
        [items[item] for item, _, _ in said],
        [raters[rater] for _, rater, _ in said],
        [values[value] for _, _, value in said],
    )
    names = list(values)
    return (
        (item, {name: round(float(share), DIGITS) for name, share in zip(names, result.posteriors[place], strict=True)})
        for item, place in items.items()
    )
