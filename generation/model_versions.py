"""Model versions: folders looked at, copied into the store under their hash, proven by drawing, numbered and promoted."""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from accounts.models import User
from generation.drawing import draw_probe
from generation.engine.folders import FolderRefused, FolderReport, hash_folder, inspect_folder
from generation.images import sync_folder
from generation.models import ModelOrigin, ModelPromotion, ModelVersion
from jobs.context import JobContext, JobFailed
from jobs.models import Job
from jobs.queue import enqueue

IMPORT_KIND = "generation.import_model"
# Model folders that are offered on the import page lie at most this deep below an allowed folder.
OFFERED_DEPTH = 3


class ImportRefused(ValueError):
    """A folder that cannot be imported; `sentence` is for a person."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


def find_importable() -> list[Path]:
    """Model folders below the allowed ones, to be offered on the import page."""
    found = []
    for root in _import_roots():
        for depth in range(OFFERED_DEPTH + 1):
            found += sorted(path.parent for path in root.glob("/".join(["*"] * depth + ["model_index.json"])))
    return list(dict.fromkeys(found))


def resolve_import(path: str | Path) -> Path:
    """The folder that a path names, which must lie below one of IMPORT_ROOTS. Raises ImportRefused.

    A relative path is looked up below each of them. Links are followed before the check, so none leads outside.
    """
    roots = _import_roots()
    if "\x00" in str(path):
        raise ImportRefused("A path cannot have a NUL character.")
    for root in roots:
        try:
            candidate = (root / path).resolve(strict=True)
        except (OSError, RuntimeError):
            continue
        if candidate.is_relative_to(root) and candidate.is_dir():
            return candidate
    allowed = " or ".join(str(root) for root in roots) or "nowhere, since none of the allowed folders exists"
    raise ImportRefused(f"There is no such folder below {allowed}.")


def enqueue_import(path: str | Path, *, name: str, by: User | None, note: str = "", licence: str = "") -> Job:
    """Look at a folder, and queue the job that imports it. Raises ImportRefused for what can be seen at once."""
    folder = resolve_import(path)
    try:
        inspect_folder(folder)
    except FolderRefused as refused:
        raise ImportRefused(refused.sentence) from refused
    with transaction.atomic():
        return enqueue(
            IMPORT_KIND,
            {"path": str(folder), "name": name, "note": note, "licence": licence, "by": by.pk if by else None},
            label=f"Import {name} from {folder.name}",
            created_by=by,
        )


def import_folder(context: JobContext) -> dict[str, Any]:
    """What the import job does; the result says which version it is, and whether it was here before."""
    payload = context.payload
    try:
        folder = resolve_import(payload["path"])
    except ImportRefused as refused:
        raise JobFailed(refused.sentence) from refused
    author = User.objects.filter(pk=payload["by"]).first()
    if author is None:
        raise JobFailed("Whoever asked for the import is gone.")
    known = set(ModelVersion.objects.values_list("pk", flat=True))
    version = register_folder(
        context,
        folder,
        name=payload["name"],
        note=payload.get("note", ""),
        licence=payload.get("licence", ""),
        origin=ModelOrigin.IMPORTED,
        parent=None,
        created_by=author,
    )
    return {"number": version.number, "existed": version.pk in known, "name": version.name}


def register_folder(
    context: JobContext,
    folder: Path,
    *,
    name: str,
    origin: str,
    parent: ModelVersion | None,
    created_by: User,
    note: str = "",
    licence: str = "",
    decoder_of: ModelVersion | None = None,
    link: Callable[[ModelVersion], None] = lambda version: None,
) -> ModelVersion:
    """Make a model version of a folder: inspect, hash, copy into MODELS_DIR/<hash>, draw a probe, and add the row. `link` is
    called with the version in the transaction that adds it, so that no version is there without what it belongs to.

    The folder itself stays where it is. If the same contents are a version already, that version is returned and nothing
    changes: weights are known by their hash, and a job that runs again ends in the same version.
    Raises JobFailed with a sentence for a folder that is no usable model, and Cancelled or LeaseLost as the context does.
    """
    try:
        report = inspect_folder(folder)
        context.progress(0, 3, "Reading the files")
        content_hash, manifest = hash_folder(folder)
    except FolderRefused as refused:
        raise JobFailed(refused.sentence) from refused
    known = ModelVersion.objects.filter(content_hash=content_hash).first()
    if known and known.folder.is_dir():
        return _linked(context, known, link)
    context.check()
    context.progress(1, 3, "Copying")
    stored = place_folder(folder, content_hash, manifest)
    if known:
        return _linked(context, known, link)
    context.progress(2, 3, "Drawing a probe")

    def watch(step: int, steps: int) -> bool:
        context.check()
        return True

    probe = draw_probe(stored, content_hash, watch)
    with context.fenced():
        version = _add_version(
            content_hash=content_hash,
            name=name,
            origin=origin,
            parent=parent,
            decoder_of=decoder_of,
            manifest=manifest,
            config=describe(report),
            image_size=report.resolution,
            has_alpha=report.has_alpha,
            byte_size=report.total_bytes,
            probe_image=probe,
            note=note,
            licence=licence,
            created_by=created_by,
        )
        link(version)
    return version


def _linked(context: JobContext, version: ModelVersion, link: Callable[[ModelVersion], None]) -> ModelVersion:
    with context.fenced():
        link(version)
    return version


def describe(report: FolderReport) -> dict[str, Any]:
    """What a version's `config` keeps of its folder's report: all but the file list, and the factor of image sizes."""
    config = asdict(report)
    del config["files"]
    # The VAE shrinks by this factor, a transformer sees patches of it, and the engine asks for multiples of 8.
    config["size_factor"] = math.lcm(8, report.resolution // report.latent_size * report.patch_size)
    return config


def place_folder(folder: Path, content_hash: str, manifest: Mapping[str, Any]) -> Path:
    """Copy a folder to MODELS_DIR/<hash> under a temporary name, sync it, check the copy's hash, and rename it.

    A folder that is there already is left alone. Raises JobFailed if the files changed meanwhile or the disk is full.
    """
    target = Path(settings.MODELS_DIR) / content_hash
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    incoming = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        for name in manifest:
            _copy_durably(folder / name, incoming / name)
        if hash_folder(incoming)[0] != content_hash:
            raise JobFailed("The folder changed while it was copied. Import it again when nothing writes to it.")
        for path in incoming.rglob("*"):
            if path.is_dir():
                sync_folder(path)
        incoming.chmod(0o755)
        sync_folder(incoming)
        with suppress(OSError):  # Another import of the same folder was first, with the same bytes.
            incoming.rename(target)
        sync_folder(target.parent)
    except FileNotFoundError as gone:
        raise JobFailed("The folder changed while it was copied. Import it again when nothing writes to it.") from gone
    except OSError as failed:
        raise JobFailed(f"The files could not be copied: {failed.strerror}.", retry=True) from failed
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return target


def promote(model_version: ModelVersion, *, by: User, reason: str = "") -> ModelPromotion:
    """Make a version the one that the next batch uses by default. The version that holds already is not promoted twice."""
    with transaction.atomic():
        _lock_numbers()
        last = ModelPromotion.objects.order_by("-id").first()
        if last and last.model_version_id == model_version.pk:
            return last
        return ModelPromotion.objects.create(model_version=model_version, promoted_by=by, reason=reason)


def _add_version(*, content_hash: str, **fields: Any) -> ModelVersion:
    """The row with the next number, or the one that another job added meanwhile. Inside a transaction."""
    _lock_numbers()
    if known := ModelVersion.objects.filter(content_hash=content_hash).first():
        return known
    newest = ModelVersion.objects.order_by("-number").values_list("number", flat=True).first()
    return ModelVersion.objects.create(number=(newest or 0) + 1, content_hash=content_hash, **fields)


def _lock_numbers() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('generation.model_version', 0))")


def _import_roots() -> list[Path]:
    return [Path(root).resolve() for root in settings.IMPORT_ROOTS if Path(root).is_dir()]


def _copy_durably(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target, follow_symlinks=False)
    target.chmod(0o644)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
