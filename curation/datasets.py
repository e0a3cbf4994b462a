"""Datasets: what a selection would contain now, and freezing it for good.

A picture with its caption is in when every campaign of the dataset that has decided about it accepted it. A picture that was
drawn twice for one caption is one entry, with the judgments of both.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db import transaction
from django.db.models import Max, OuterRef, QuerySet

from accounts.models import User
from curation.campaigns import free_slug
from curation.manifests import Entry, canonical_manifest, source_of, store_manifest
from curation.models import (
    Campaign,
    CampaignKind,
    Dataset,
    DatasetEntry,
    DatasetVersion,
    ItemSample,
    Judgment,
    Outcome,
    Verdict,
)
from curation.verdicts import MAJORITY

SELECTABLE = (CampaignKind.ALIGNMENT, CampaignKind.STYLE)
CHUNK = 2000


class DatasetRefused(ValueError):
    """A dataset that cannot be made or frozen as asked; the message is for a person."""


@dataclass(frozen=True)
class BucketBalance:
    """A bucket's share: pictures accepted, of those that were decided about."""

    bucket: str
    accepted: int
    decided: int


@dataclass(frozen=True)
class Preview:
    """What a freeze would contain now, and how that differs from the version before."""

    entries: list[Entry]
    added: list[Entry]
    removed: list[DatasetEntry]
    previous: DatasetVersion | None
    balance: list[BucketBalance]

    @property
    def is_changed(self) -> bool:
        return bool(self.added or self.removed or self.previous is None)


def create_dataset(*, name: str, campaigns: Iterable[Campaign], by: User, note: str = "") -> Dataset:
    """A named selection from campaigns about single samples. Raises DatasetRefused."""
    rows = list(campaigns)
    if not name.strip():
        raise DatasetRefused("A dataset needs a name.")
    _check_campaigns(rows)
    with transaction.atomic():
        dataset = Dataset.objects.create(
            slug=free_slug(name, Dataset),
            name=name.strip()[:120],
            note=note.strip()[:300],
            rule=MAJORITY,
            created_by=by,
        )
        dataset.campaigns.set(rows)
    return dataset


def choose_campaigns(dataset: Dataset, campaigns: Iterable[Campaign]) -> None:
    """Let the dataset select from these campaigns from now on; frozen versions stay. Raises DatasetRefused."""
    rows = list(campaigns)
    _check_campaigns(rows)
    dataset.campaigns.set(rows)


def select_entries(dataset: Dataset) -> list[Entry]:
    """What the dataset contains now, sorted by image and caption."""
    # One statement sees verdicts and judgments of one moment.
    standing = Judgment.objects.standing().filter(item=OuterRef("item")).order_by().values("pk")
    outcome = Verdict.objects.filter(item=OuterRef("item"), rule=dataset.rule).values("outcome")
    rows = (
        _item_samples(dataset)
        .filter(item__verdicts__rule=dataset.rule)
        .exclude(item__verdicts__outcome=Outcome.PENDING)
        .select_related("sample__prompt", "sample__batch__model_version")
        .annotate(outcome=outcome[:1], judgment_ids=ArraySubquery(standing))
        .order_by("sample_id", "item_id")
    )
    groups: dict[tuple[str, str], list[ItemSample]] = {}
    for row in rows:
        groups.setdefault((row.sample.image, row.sample.prompt.taught_as), []).append(row)
    accepted = [rows for rows in groups.values() if all(row.outcome == Outcome.ACCEPTED for row in rows)]  # type: ignore[attr-defined]
    return sorted(map(_entry, accepted), key=lambda entry: entry.key)


def preview(dataset: Dataset) -> Preview:
    """What freezing the dataset now would give."""
    entries = select_entries(dataset)
    previous = dataset.versions.order_by("-number").first()
    before = {}
    if previous:
        before = {
            (row.image, row.caption): row for row in previous.entries.select_related("sample").order_by("position")
        }
    now = {entry.key for entry in entries}
    return Preview(
        entries=entries,
        added=[entry for entry in entries if entry.key not in before],
        removed=[row for key, row in before.items() if key not in now],
        previous=previous,
        balance=_balance(dataset, entries),
    )


def freeze(dataset: Dataset, *, by: User, note: str = "") -> DatasetVersion:
    """Freeze what the dataset contains now. Raises DatasetRefused where that is nothing.

    From the same facts the same version comes back: `newly_frozen` says whether this call made it.
    """
    entries = select_entries(dataset)
    if not entries:
        raise DatasetRefused("There is nothing to freeze: no sample of these campaigns has been accepted yet.")
    content_hash = store_manifest(canonical_manifest(dataset.slug, dataset.rule, entries))
    with transaction.atomic():
        Dataset.objects.select_for_update(no_key=True).get(pk=dataset.pk)
        versions = DatasetVersion.objects.filter(dataset=dataset)
        known = versions.filter(content_hash=content_hash).first()
        if known is not None:
            return known
        number = (versions.aggregate(last=Max("number"))["last"] or 0) + 1
        version = DatasetVersion.objects.create(
            dataset=dataset,
            number=number,
            content_hash=content_hash,
            rule=dataset.rule,
            entry_count=len(entries),
            note=note.strip()[:300],
            frozen_by=by,
        )
        DatasetEntry.objects.bulk_create(
            [
                DatasetEntry(
                    version=version,
                    position=position,
                    sample_id=entry.sample_id,
                    image=entry.image,
                    caption=entry.caption,
                    bucket=entry.bucket,
                    judgment_ids=list(entry.judgments),
                )
                for position, entry in enumerate(entries)
            ],
            batch_size=CHUNK,
        )
    version.newly_frozen = True
    return version


def _check_campaigns(campaigns: list[Campaign]) -> None:
    if not campaigns:
        raise DatasetRefused("Choose at least one campaign to select from.")
    if any(campaign.kind not in SELECTABLE for campaign in campaigns):
        raise DatasetRefused("Only alignment and style campaigns accept samples; a comparison does not.")


def _item_samples(dataset: Dataset) -> QuerySet[ItemSample]:
    return ItemSample.objects.filter(item__campaign__in=dataset.campaigns.all())


def _entry(rows: list[Any]) -> Entry:
    first = rows[0].sample
    return Entry(
        sample_id=first.pk,
        image=first.image,
        thumbnail=first.thumbnail,
        caption=first.prompt.taught_as,
        bucket=first.prompt.bucket,
        source=source_of(first, first.prompt.taught_as),
        judgments=tuple(sorted({str(pk) for row in rows for pk in row.judgment_ids})),
    )


def _balance(dataset: Dataset, entries: list[Entry]) -> list[BucketBalance]:
    accepted = Counter(entry.bucket for entry in entries)
    rows = (
        _item_samples(dataset)
        .filter(item__verdicts__rule=dataset.rule)
        .exclude(item__verdicts__outcome=Outcome.PENDING)
        .order_by()
        .values_list("sample__prompt__bucket", "sample__image", "sample__prompt__caption", "sample__prompt__text")
        .distinct()
    )
    decided = Counter(
        bucket for bucket, _, _ in {(bucket, image, caption or text) for bucket, image, caption, text in rows}
    )
    buckets = sorted(decided, key=lambda bucket: (-accepted[bucket], bucket))
    return [BucketBalance(bucket, accepted[bucket], decided[bucket]) for bucket in buckets]
