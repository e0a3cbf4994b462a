"""Browsing samples: which ones a set of filters shows, and what has been decided about each."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from curation.datasets import SELECTABLE
from curation.models import Campaign, ItemSample, Outcome
from generation.models import Sample

DECIDED = (Outcome.ACCEPTED, Outcome.REJECTED, Outcome.SPLIT)
MARKS = {Outcome.REJECTED: "fail", Outcome.SPLIT: "split", Outcome.ACCEPTED: "pass"}


def find_samples(samples: QuerySet[Sample], filters: Mapping[str, Any]) -> QuerySet[Sample]:
    """The samples that fit verdict, campaign, batch, bucket, model and words, those that are given; the newest first."""
    campaign, verdict = filters.get("campaign"), filters.get("verdict")
    if campaign:
        samples = samples.filter(
            Exists(ItemSample.objects.filter(sample=OuterRef("pk"), item__campaign=campaign, item__is_gold=False))
        )
    if verdict == Outcome.PENDING:
        samples = samples.exclude(Exists(_judged(campaign).filter(item__verdicts__outcome__in=DECIDED)))
    elif verdict:
        # A candidate of a pick has an outcome of its own.
        own = {Outcome.ACCEPTED: Q(picked=True), Outcome.REJECTED: Q(picked=False)}.get(verdict, Q(pk=None))
        samples = samples.filter(
            Exists(_judged(campaign).filter(own | Q(picked=None, item__verdicts__outcome=verdict)))
        )
    if batch := filters.get("batch"):
        samples = samples.filter(batch=batch)
    if model := filters.get("model"):
        samples = samples.filter(batch__model_version=model)
    if bucket := filters.get("bucket"):
        samples = samples.filter(prompt__bucket=bucket)
    for word in (filters.get("words") or "").split()[:10]:
        samples = samples.filter(Q(prompt__text__icontains=word) | Q(prompt__caption__icontains=word))
    return samples.order_by("-pk")


def marks_of(samples: Iterable[Sample], campaign: Campaign | None = None) -> dict[int, str]:
    """Sample id -> pass, fail or split, where something has been decided. Of several campaigns the strictest counts."""
    rows = ItemSample.objects.filter(
        item__verdicts__outcome__in=DECIDED,
        item__campaign__kind__in=SELECTABLE,
        sample__in=[sample.pk for sample in samples],
    ).order_by()
    if campaign:
        rows = rows.filter(item__campaign=campaign)
    found: defaultdict[int, set[str]] = defaultdict(set)
    for sample_id, outcome, picked in rows.values_list("sample", "item__verdicts__outcome", "picked"):
        found[sample_id].add(outcome if picked is None else Outcome.ACCEPTED if picked else Outcome.REJECTED)
    return {pk: next(mark for outcome, mark in MARKS.items() if outcome in outcomes) for pk, outcomes in found.items()}


def _judged(campaign: Campaign | None) -> QuerySet[ItemSample]:
    about = Q(item__campaign=campaign) if campaign else Q(item__campaign__kind__in=SELECTABLE)
    return ItemSample.objects.filter(about, sample=OuterRef("pk"))
