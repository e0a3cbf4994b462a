"""Pairs: what closed comparisons decided, as entries of a dataset of preferences.

An item whose verdict names a side gives a pair: the sample that was preferred, and the one that was rejected, under the
caption that raters read. Ties give none. The same pair from several items is one entry with the judgments of all; where items
contradict each other about two pictures under one caption, neither order is in.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import F, OuterRef, Prefetch, QuerySet

from curation.manifests import Entry, source_of
from curation.models import (
    Adjudication,
    Campaign,
    CampaignKind,
    CampaignState,
    Dataset,
    Item,
    ItemSample,
    Judgment,
    Outcome,
    Verdict,
)
from generation.models import Sample

DECIDED = (Outcome.BASELINE, Outcome.CANDIDATE, Outcome.TIE)


def waiting_comparisons(campaigns: QuerySet[Campaign]) -> QuerySet[Campaign]:
    """The comparisons among these that do not count: who still judges blind must not see how one stands."""
    return campaigns.filter(kind=CampaignKind.COMPARE).exclude(state=CampaignState.CLOSED)


def decided_items(dataset: Dataset) -> list[Any]:
    """The items of the dataset's closed comparisons that are decided, ties too: each with its `outcome`, the `rule` that
    it is by and the `asked_rule` of its campaign, `judgment_ids`, `adjudication_ids`, and samples by slot."""
    closed = dataset.campaigns.filter(kind=CampaignKind.COMPARE, state=CampaignState.CLOSED)
    # One statement sees states, verdicts and judgments of one moment; which samples an item has never changes.
    standing = Judgment.objects.standing().filter(item=OuterRef("pk")).order_by().values("pk")
    decided = Adjudication.objects.standing().filter(item=OuterRef("pk")).order_by().values("pk")
    verdict = Verdict.objects.filter(item=OuterRef("pk"))
    samples = ItemSample.objects.select_related("sample__prompt", "sample__batch__model_version").order_by("slot")
    return list(
        Item.objects.filter(campaign__in=closed)
        .annotate(
            outcome=verdict.values("outcome")[:1],
            rule=verdict.values("rule")[:1],
            asked_rule=F("campaign__rule"),
            judgment_ids=ArraySubquery(standing),
            adjudication_ids=ArraySubquery(decided),
        )
        .filter(outcome__in=DECIDED)
        .select_related("prompt")
        .prefetch_related(Prefetch("item_samples", samples))
        .order_by("pk")
    )


def pair_entries(items: Iterable[Any]) -> list[Entry]:
    """The pairs of these decided items, sorted by image, caption and rejected image."""
    groups: dict[tuple[str, str, str], list[tuple[Any, Sample, Sample]]] = {}
    for item in items:
        if item.outcome == Outcome.TIE:
            continue
        baseline, candidate = _samples(item)
        chosen, rejected = (baseline, candidate) if item.outcome == Outcome.BASELINE else (candidate, baseline)
        if chosen.image != rejected.image:
            key = (chosen.image, item.prompt.taught_as, rejected.image)
            groups.setdefault(key, []).append((item, chosen, rejected))
    agreed = [rows for (image, caption, other), rows in groups.items() if (other, caption, image) not in groups]
    return sorted(map(_entry, agreed), key=lambda entry: entry.key)


def decided_by_bucket(items: Iterable[Any]) -> Counter[str]:
    """Bucket -> how many different pairs of pictures with a caption were decided about, ties and contradictions too."""
    pairs = set()
    for item in items:
        baseline, candidate = _samples(item)
        pictures = tuple(sorted([baseline.image, candidate.image]))
        pairs.add((item.prompt.bucket, pictures, item.prompt.taught_as))
    return Counter(bucket for bucket, _, _ in pairs)


def _samples(item: Any) -> tuple[Sample, Sample]:
    """Baseline and candidate."""
    baseline, candidate = item.item_samples.all()
    return baseline.sample, candidate.sample


def _entry(rows: list[tuple[Any, Sample, Sample]]) -> Entry:
    # Which of the samples that show the same pictures stand for the pair must not depend on the order of campaigns.
    item, chosen, rejected = min(rows, key=lambda row: (row[1].pk, row[2].pk, row[0].pk))
    caption = item.prompt.taught_as
    return Entry(
        sample_id=chosen.pk,
        image=chosen.image,
        thumbnail=chosen.thumbnail,
        caption=caption,
        bucket=item.prompt.bucket,
        source=source_of(chosen, caption),
        judgments=tuple(sorted({str(pk) for item, _, _ in rows for pk in item.judgment_ids})),
        adjudications=tuple(sorted({str(pk) for item, _, _ in rows for pk in item.adjudication_ids})),
        rejected=rejected.image,
        rejected_sample_id=rejected.pk,
        rejected_thumbnail=rejected.thumbnail,
        rejected_source=source_of(rejected, caption),
    )
