"""Manifests: what a frozen version consists of, in one canonical form whose SHA-256 names it.

The form is JSON in UTF-8 with sorted keys and without spaces; entries are sorted by image, caption and, where they are pairs,
rejected image. Nothing in it depends on when, by whom or under which number it was frozen, so that the same facts always give
the same hash.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from curation.models import DatasetEntry, DatasetVersion
from generation.images import SHA256, write_durably
from generation.models import Sample

FORMAT = "atelier-dataset/1"


@dataclass(frozen=True)
class Entry:
    """One image of a selection, with the caption that it is taught under, how it was drawn, and the judgments and decisions
    of curators behind it (UUIDs, sorted). In a pair, which has a `rejected` image, it is the one that was preferred."""

    sample_id: int
    image: str
    thumbnail: str
    caption: str
    bucket: str
    source: dict[str, Any]
    judgments: tuple[str, ...]
    adjudications: tuple[str, ...] = ()
    rejected: str = ""
    rejected_sample_id: int | None = None
    rejected_thumbnail: str = ""
    rejected_source: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two entries the same: the picture, its caption, and in a pair the rejected picture."""
        return self.image, self.caption, self.rejected

    def as_row(self) -> dict[str, Any]:
        """The entry in the manifest. Only a pair speaks of what was rejected, and only an entry that a curator decided on of
        that, so that other versions keep their hash."""
        decided = {"adjudications": list(self.adjudications)} if self.adjudications else {}
        pair = {"rejected": self.rejected, "rejected_source": self.rejected_source} if self.rejected else {}
        return {
            "image": self.image,
            "caption": self.caption,
            "bucket": self.bucket,
            "source": self.source,
            "judgments": list(self.judgments),
            **decided,
            **pair,
        }


def canonical_manifest(
    slug: str,
    rule: str,
    entries: Iterable[Entry],
    guidelines: Mapping[str, list[int]] | None = None,
    questions: Mapping[str, list[int]] | None = None,
) -> bytes:
    """The canonical form of a version. `guidelines`: slug of a campaign -> the revisions that its raters had, ascending, of
    the campaigns where these were several; a version without any does not speak of them, so that earlier ones keep their hash.
    `questions`: the same of the revisions of its questions.
    """
    rows = [entry.as_row() for entry in sorted(entries, key=lambda entry: entry.key)]
    content: dict[str, Any] = {"format": FORMAT, "dataset": slug, "rule": rule, "entries": rows}
    if guidelines:
        content["guidelines"] = dict(guidelines)
    if questions:
        content["questions"] = dict(questions)
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def store_manifest(content: bytes) -> str:
    """Keep the manifest under its SHA-256, which is returned."""
    sha256 = hashlib.sha256(content).hexdigest()
    name = manifest_name(sha256)
    if not default_storage.exists(name):
        try:
            write_durably(Path(default_storage.path(name)), content)
        except NotImplementedError:  # An object store has no paths; it shows an object only when it is whole.
            default_storage.save(name, ContentFile(content))
    return sha256


def read_manifest(sha256: str) -> bytes:
    """The stored manifest. Raises FileNotFoundError."""
    with default_storage.open(manifest_name(sha256), "rb") as file:
        content: bytes = file.read()
        return content


def manifest_name(sha256: str) -> str:
    """The name in the store. Raises ValueError unless the hash is 64 lower-case hex digits."""
    if not SHA256.fullmatch(sha256):
        raise ValueError("A stored manifest is named by 64 hex digits.")
    return f"manifests/{sha256[:2]}/{sha256[2:4]}/{sha256}.json"


def source_of(sample: Sample, caption: str) -> dict[str, Any]:
    """Everything needed to draw the sample again, whose entry has this caption. Needs `prompt` and `batch.model_version`.

    The prompt is named only where it is not the caption, so that versions of the time before captions keep their hash.
    """
    batch = sample.batch
    prompt = {} if sample.prompt.text == caption else {"prompt": sample.prompt.text}
    return prompt | {
        "model": batch.model_version.content_hash,
        "seed": sample.seed,
        "steps": batch.steps,
        "guidance": batch.guidance,
        "scheduler": batch.scheduler,
        "negative_prompt": batch.negative_prompt,
        "width": sample.width,
        "height": sample.height,
    }


def frozen_entries(version: DatasetVersion) -> Iterator[Entry]:
    """The entries of a version as its rows have them, in the order of their positions."""
    rows = DatasetEntry.objects.filter(version=version).select_related(
        "sample__prompt", "sample__batch__model_version", "rejected__prompt", "rejected__batch__model_version"
    )
    for row in rows.order_by("position").iterator(chunk_size=2000):
        yield Entry(
            sample_id=row.sample_id,
            image=row.image,
            thumbnail=row.sample.thumbnail,
            caption=row.caption,
            bucket=row.bucket,
            source=source_of(row.sample, row.caption),
            judgments=tuple(row.judgment_ids),
            adjudications=tuple(row.adjudication_ids),
            rejected=row.rejected_image,
            rejected_sample_id=row.rejected_id,
            rejected_thumbnail=row.rejected.thumbnail if row.rejected else "",
            rejected_source=source_of(row.rejected, row.caption) if row.rejected else None,
        )


def manifest_rows(version: DatasetVersion) -> Iterator[dict[str, Any]]:
    """The rows of a version's manifest: image (SHA-256), caption, bucket, source, judgments; where a curator decided also
    adjudications; of pairs also rejected (SHA-256) and rejected_source."""
    return (entry.as_row() for entry in frozen_entries(version))


def manifest_of(version: DatasetVersion) -> bytes:
    """The canonical manifest again, from the rows."""
    return canonical_manifest(
        version.dataset.slug, version.rule, frozen_entries(version), version.guidelines, version.questions
    )
