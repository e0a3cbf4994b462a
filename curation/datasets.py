"""Datasets: what a selection would contain now, and freezing it for good.

A picture with its caption is in when every campaign of the dataset that has decided about it accepted it. A picture that was
drawn twice for one caption is one entry, with the judgments of both. A dataset holds either such images or the pairs of closed
comparisons (curation.pairs): its campaigns decide which when it is made.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.contrib.postgres.expressions import ArraySubquery
from django.db import transaction
from django.db.models import Case, Exists, F, Max, OuterRef, QuerySet, Subquery, Value, When

from accounts.models import User
from curation.campaigns import free_slug
from curation.manifests import Entry, canonical_manifest, source_of, store_manifest
from curation.models import (
    Adjudication,
    Assignment,
    Campaign,
    CampaignKind,
    CampaignRater,
    Dataset,
    DatasetEntry,
    DatasetKind,
    DatasetVersion,
    ItemSample,
    Judgment,
    Outcome,
    Verdict,
)
from curation.pairs import decided_by_bucket, decided_items, pair_entries, waiting_comparisons
from curation.rules import join_names, read_rule
from jobs.models import FINAL_STATES, JobState

# The campaigns that give images: each of their samples is accepted or not.
SELECTABLE = (CampaignKind.ALIGNMENT, CampaignKind.STYLE, CampaignKind.PICK)
CHUNK = 2000
# What makes two entries the same (see `Entry.key`).
Key: TypeAlias = tuple[str, str, str]


class DatasetRefused(ValueError):
    """A dataset that cannot be made or frozen as asked; the message is for a person."""


@dataclass(frozen=True)
class BucketBalance:
    """A bucket's share: pictures accepted, or pairs in, of those that were decided about."""

    bucket: str
    accepted: int
    decided: int


@dataclass(frozen=True)
class Preview:
    """How much a freeze would contain now, and how that differs from the version before; the first that are added and removed."""

    count: int
    added_count: int
    removed_count: int
    added: list[Entry]
    removed: list[DatasetEntry]
    previous: DatasetVersion | None
    balance: list[BucketBalance]

    @property
    def is_changed(self) -> bool:
        return bool(self.added_count or self.removed_count or self.previous is None)


def create_dataset(*, name: str, campaigns: Iterable[Campaign], by: User, note: str = "") -> Dataset:
    """A named selection: images from campaigns about single samples, or pairs from comparisons. Raises DatasetRefused."""
    rows = list(campaigns)
    if not name.strip():
        raise DatasetRefused("A dataset needs a name.")
    kind = _kind_of(rows)
    _check_closed(rows)
    with transaction.atomic():
        dataset = Dataset.objects.create(
            slug=free_slug(name, Dataset),
            name=name.strip()[:120],
            kind=kind,
            note=note.strip()[:300],
            created_by=by,
        )
        dataset.campaigns.set(rows)
    return dataset


def choose_campaigns(dataset: Dataset, campaigns: Iterable[Campaign]) -> None:
    """Let the dataset select from these campaigns from now on; frozen versions stay. Raises DatasetRefused.

    A comparison that was chosen before and opened again since may stay: it counts again once it is closed.
    """
    rows = list(campaigns)
    if _kind_of(rows) != dataset.kind:
        others = "comparisons" if dataset.kind == DatasetKind.PAIRS else "alignment, style and pick campaigns"
        raise DatasetRefused(f"This dataset holds {dataset.unit}s, and so it selects from {others} only.")
    known = set(dataset.campaigns.values_list("pk", flat=True))
    _check_closed([row for row in rows if row.pk not in known])
    dataset.campaigns.set(rows)


def select_entries(dataset: Dataset) -> list[Entry]:
    """What the dataset contains now, sorted by image, caption and rejected image."""
    return _entries_of(dataset, _decided(dataset))


def _decided(dataset: Dataset) -> list[Any]:
    """All that was decided about in the dataset's campaigns: items of comparisons, or samples of items."""
    return decided_items(dataset) if dataset.kind == DatasetKind.PAIRS else _decided_samples(dataset)


def _entries_of(dataset: Dataset, decided: list[Any]) -> list[Entry]:
    return pair_entries(decided) if dataset.kind == DatasetKind.PAIRS else _image_entries(decided)


def _decided_samples(dataset: Dataset, images: Iterable[str] | None = None) -> list[Any]:
    """Those of the given images alone, where some are given."""
    # One statement sees verdicts and judgments of one moment.
    standing = Judgment.objects.standing().filter(item=OuterRef("item")).order_by().values("pk")
    decided = Adjudication.objects.standing().filter(item=OuterRef("item")).order_by().values("pk")
    rows = (
        _with_outcomes(dataset)
        .select_related("sample__prompt", "sample__batch__model_version")
        .annotate(
            rule=Subquery(Verdict.objects.filter(item=OuterRef("item")).values("rule")[:1]),
            asked_rule=F("item__campaign__rule"),
            judgment_ids=ArraySubquery(standing),
            adjudication_ids=ArraySubquery(decided),
        )
        .order_by("sample_id", "item_id")
    )
    return list(rows if images is None else rows.filter(sample__image__in=images))


def _with_outcomes(dataset: Dataset) -> QuerySet[ItemSample]:
    """The samples about which the dataset's campaigns decided."""
    verdict = Verdict.objects.filter(item=OuterRef("item")).exclude(outcome=Outcome.PENDING)
    return ItemSample.objects.filter(Exists(verdict), item__campaign__in=dataset.campaigns.all()).annotate(
        outcome=Case(
            # A candidate of a pick has an outcome of its own.
            When(picked=True, then=Value(Outcome.ACCEPTED.value)),
            When(picked=False, then=Value(Outcome.REJECTED.value)),
            default=Subquery(verdict.values("outcome")[:1]),
        )
    )


def _image_entries(rows: list[Any]) -> list[Entry]:
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        groups.setdefault((row.sample.image, row.sample.prompt.taught_as), []).append(row)
    accepted = [rows for rows in groups.values() if all(row.outcome == Outcome.ACCEPTED for row in rows)]
    return sorted(map(_entry, accepted), key=lambda entry: entry.key)


def preview(dataset: Dataset, shown: int = 60) -> Preview:
    """What freezing the dataset now would give, and the first `shown` of what is added and removed."""
    find = _pairs_now if dataset.kind == DatasetKind.PAIRS else _images_now
    buckets, decided, load = find(dataset)
    previous = dataset.versions.order_by("-number").first()
    before: set[Key] = set()
    if previous:
        before.update(previous.entries.values_list("image", "caption", "rejected_image"))
    added, removed = sorted(buckets.keys() - before), before - buckets.keys()
    gone = []
    if previous and removed:
        rows = previous.entries.filter(image__in={image for image, _, _ in sorted(removed)[:shown]})
        gone = [
            row
            for row in rows.select_related("sample", "rejected").order_by("position")
            if (row.image, row.caption, row.rejected_image) in removed
        ]
    return Preview(
        count=len(buckets),
        added_count=len(added),
        removed_count=len(removed),
        added=load(added[:shown]),
        removed=gone[:shown],
        previous=previous,
        balance=_balance(Counter(buckets.values()), decided),
    )


def _images_now(dataset: Dataset) -> tuple[dict[Key, str], Counter[str], Callable[[list[Key]], list[Entry]]]:
    """(the bucket of each entry, by bucket how many different pictures with a caption were decided about, what loads entries).

    A dataset may select from a hundred thousand samples: of most of them no more is read than what decides.
    """
    rows = _with_outcomes(dataset).order_by("sample_id", "item_id")
    buckets: dict[Key, str] = {}
    refused: set[Key] = set()
    pictures: set[tuple[str, Key]] = set()
    fields = ("sample__image", "sample__prompt__caption", "sample__prompt__text", "sample__prompt__bucket", "outcome")
    for image, caption, text, bucket, outcome in rows.values_list(*fields).iterator(CHUNK):
        key = (image, caption or text, "")
        buckets.setdefault(key, bucket)
        pictures.add((bucket, key))
        if outcome != Outcome.ACCEPTED:
            refused.add(key)

    def load(keys: list[Key]) -> list[Entry]:
        wanted = set(keys)
        entries = _image_entries(_decided_samples(dataset, {image for image, _, _ in keys})) if keys else []
        return [entry for entry in entries if entry.key in wanted]

    accepted = {key: bucket for key, bucket in buckets.items() if key not in refused}
    return accepted, Counter(bucket for bucket, _ in pictures), load


def _pairs_now(dataset: Dataset) -> tuple[dict[Key, str], Counter[str], Callable[[list[Key]], list[Entry]]]:
    """The same of pairs."""
    decided = decided_items(dataset)
    entries = {entry.key: entry for entry in pair_entries(decided)}
    buckets = {key: entry.bucket for key, entry in entries.items()}
    return buckets, decided_by_bucket(decided), lambda keys: [entries[key] for key in keys]


def freeze(dataset: Dataset, *, by: User, note: str = "") -> DatasetVersion:
    """Freeze what the dataset contains now. Raises DatasetRefused where that is nothing, or cannot be held.

    From the same facts the same version comes back: `newly_frozen` says whether this call made it.
    """
    with transaction.atomic():
        _check_counted(dataset)
        decided = _decided(dataset)
    entries = _entries_of(dataset, decided)
    _check_entries(dataset, entries)
    if any(row.rule != row.asked_rule for row in decided):
        raise DatasetRefused(
            "Verdicts of these campaigns are being counted by another rule. Freeze it when that is done."
        )
    rule = join_names({row.rule for row in decided})
    guidelines = _revisions_behind(entries, "guideline_revision")
    questions = _revisions_behind(entries, "question_revision")
    content_hash = store_manifest(canonical_manifest(dataset.slug, rule, entries, guidelines, questions))
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
            rule=rule,
            guidelines=guidelines,
            questions=questions,
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
                    adjudication_ids=list(entry.adjudications),
                    rejected_id=entry.rejected_sample_id,
                    rejected_image=entry.rejected,
                )
                for position, entry in enumerate(entries)
            ],
            batch_size=CHUNK,
        )
    version.newly_frozen = True
    return version


def _revisions_behind(entries: list[Entry], field: str) -> dict[str, list[int]]:
    """Campaign's slug -> numbers of the revisions of guidelines or questions (a judgment's `field`) that raters had before them,
    ascending, where these were several. Judgments of which it is not known do not count. Judgments never change, so the same entries always give the same."""
    judgments = sorted({pk for entry in entries for pk in entry.judgments})
    found: dict[str, set[int]] = {}
    for start in range(0, len(judgments), CHUNK):
        known = Judgment.objects.filter(pk__in=judgments[start : start + CHUNK]).exclude(**{field: None})
        named = known.order_by().values_list("item__campaign__slug", f"{field}__number").distinct()
        for slug, number in named:
            found.setdefault(slug, set()).add(number)
    return {slug: sorted(numbers) for slug, numbers in sorted(found.items()) if len(numbers) > 1}


def _kind_of(campaigns: list[Campaign]) -> DatasetKind:
    """What these campaigns give. Raises DatasetRefused where that is nothing, or not one thing."""
    if not campaigns:
        raise DatasetRefused("Choose at least one campaign to select from.")
    kinds = {campaign.kind for campaign in campaigns}
    if kinds <= set(SELECTABLE):
        return DatasetKind.IMAGES
    if kinds == {CampaignKind.COMPARE}:
        return DatasetKind.PAIRS
    raise DatasetRefused(
        "A dataset holds either images or pairs: choose alignment, style and pick campaigns, or comparisons, but not both."
    )


def _check_closed(campaigns: list[Campaign]) -> None:
    waiting = waiting_comparisons(Campaign.objects.filter(pk__in=[campaign.pk for campaign in campaigns])).first()
    if waiting is not None:
        raise DatasetRefused(
            f"“{waiting}” is not closed. A comparison can be chosen once it is, because who judges in it "
            "must not see how it stands."
        )


def _check_counted(dataset: Dataset) -> None:
    """That all verdicts of the dataset's campaigns rest on the same raters and the same estimate, and go on doing so until the
    end of the transaction: a version that was frozen amid a count would keep what it is about to take out."""
    rows = dataset.campaigns.select_for_update(no_key=True, of=("self",)).select_related("recount_job").order_by("pk")
    for campaign in rows:
        job = campaign.recount_job
        if job is not None and job.state not in FINAL_STATES:
            raise DatasetRefused(
                f"The verdicts of “{campaign}” are being counted anew. Freeze the dataset when that is done."
            )
        if job is not None and job.state != JobState.SUCCEEDED and read_rule(campaign.rule).is_estimated:
            raise DatasetRefused(
                f"The raters of “{campaign}” were not estimated to the end the last time. Estimate them anew, and freeze "
                "the dataset then."
            )
    # One of the two has few rows, and an index of its own.
    mine = Assignment.objects.filter(item__campaign=OuterRef("campaign"), rater=OuterRef("rater"))
    half_done = Case(
        When(excluded=True, then=Exists(mine.filter(excluded=False))), default=Exists(mine.filter(excluded=True))
    )
    places = CampaignRater.objects.filter(campaign__in=[row.pk for row in rows]).select_related("campaign", "rater")
    place = places.filter(half_done).order_by("pk").first()
    if place is not None:
        how = "excluded" if place.excluded else "taken in again"
        raise DatasetRefused(
            f"What {place.rater} said in “{place.campaign}” is {how} for a part of the items only, since that did not come to "
            "its end. Change whether it counts once more, and freeze the dataset then."
        )


def _check_entries(dataset: Dataset, entries: list[Entry]) -> None:
    if not entries and dataset.kind == DatasetKind.PAIRS:
        raise DatasetRefused("There is nothing to freeze: no closed comparison of this dataset prefers one side yet.")
    if not entries:
        raise DatasetRefused("There is nothing to freeze: no sample of these campaigns has been accepted yet.")
    if len({(entry.sample_id, entry.rejected_sample_id) for entry in entries}) < len(entries):
        raise DatasetRefused(
            "Two samples were compared under more than one caption, and a version holds them once. "
            "Leave one of these comparisons out."
        )


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
        adjudications=tuple(sorted({str(pk) for row in rows for pk in row.adjudication_ids})),
    )


def _balance(accepted: Counter[str], decided: Counter[str]) -> list[BucketBalance]:
    buckets = sorted(decided, key=lambda bucket: (-accepted[bucket], bucket))
    return [BucketBalance(bucket, accepted[bucket], decided[bucket]) for bucket in buckets]
