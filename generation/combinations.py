"""Versions of two: what draws latents of one, the VAE of another, where both VAEs have the same encoder.

A decoder knows nothing of the U-Net or transformer: it turns the encoder's latents into pixels, whoever made them. So a transparency
decoder that was trained once serves every denoiser that was trained on the same latents.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils.text import capfirst

from accounts.models import User
from generation.engine.encoders import hash_encoder
from generation.engine.folders import LOW_RANK_FILE, FolderRefused
from generation.model_versions import register_folder
from generation.models import ModelOrigin, ModelVersion
from jobs.context import JobContext, JobFailed
from jobs.models import Job
from jobs.queue import enqueue

KIND = "generation.combine_models"
VAE = "vae/"


class CombinationRefused(ValueError):
    """Two versions that cannot be combined; `sentence` is for a person."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


def decoders_for(version: ModelVersion) -> "QuerySet[ModelVersion]":
    """Versions that draw transparency at this one's size with a VAE that is not its own; which of them share its encoder
    is seen when one is asked for, but for those whose latents have another shape."""
    others = ModelVersion.objects.filter(has_alpha=True, image_size=version.image_size).exclude(pk=version.pk)
    own, latents = _part(version, VAE), _latents(version)
    found = [
        each.pk for each in others if _part(each, VAE) != own and (latents is None or _latents(each) in (latents, None))
    ]
    return others.filter(pk__in=found).order_by("-number")


def request_combination(version: ModelVersion, decoder_of: ModelVersion, *, by: User) -> Job:
    """Queue the job that makes a version that draws `version`'s latents and decodes them as `decoder_of` does.

    Raises CombinationRefused for what can be seen at once; where the files lie on another machine, its worker compares
    the encoders.
    """
    check_pair(version, decoder_of)
    with transaction.atomic():
        return enqueue(
            KIND,
            {"version": version.pk, "decoder_of": decoder_of.pk, "by": by.pk},
            label=f"Give v{version.number} the decoder of v{decoder_of.number}",
            created_by=by,
        )


def check_pair(version: ModelVersion, decoder_of: ModelVersion) -> None:
    """Raise CombinationRefused unless the second can lend the first its decoder; encoders that are here are compared."""
    if version.pk == decoder_of.pk or _part(version, VAE) == _part(decoder_of, VAE):
        raise CombinationRefused(f"{version} has the decoder of {decoder_of} already.")
    try:
        hashes = [hash_encoder(each.folder) for each in (version, decoder_of)]
    except FileNotFoundError:
        return
    except FolderRefused as refused:
        raise CombinationRefused(refused.sentence) from refused
    if hashes[0] != hashes[1]:
        raise CombinationRefused(
            f"{version} and {decoder_of} do not share their encoder: the latents that one draws mean nothing to the "
            "decoder of the other."
        )


def combine(context: JobContext) -> dict[str, Any]:
    """What the job does; the result says which version it is, and whether it was here before."""
    payload = context.payload
    found = ModelVersion.objects.in_bulk([payload["version"], payload["decoder_of"]])
    version, decoder_of = found.get(payload["version"]), found.get(payload["decoder_of"])
    author = User.objects.filter(pk=payload["by"]).first()
    if version is None or decoder_of is None or author is None:
        raise JobFailed("One of the versions, or whoever asked for it, is gone.")
    for each in (version, decoder_of):
        if not each.folder.is_dir():
            raise JobFailed(f"The folder of {each} is not on this machine.")
    try:
        check_pair(version, decoder_of)
    except CombinationRefused as refused:
        raise JobFailed(refused.sentence) from refused
    known = set(ModelVersion.objects.values_list("pk", flat=True))
    scratch = Path(tempfile.mkdtemp(prefix=".combined-", dir=settings.MODELS_DIR))
    try:
        _assemble(scratch / "model", version, decoder_of)
        made = register_folder(
            context,
            scratch / "model",
            name=f"{version.name} with the decoder of v{decoder_of.number}"[:120],
            note=f"{capfirst(version.family.latent_drawers)} of v{version.number}, decoder of v{decoder_of.number}",
            origin=ModelOrigin.COMBINED,
            parent=version,
            decoder_of=decoder_of,
            created_by=author,
        )
    except OSError as failed:
        raise JobFailed(f"The files could not be copied: {failed.strerror}.", retry=True) from failed
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {"number": made.number, "existed": made.pk in known, "name": made.name}


def _assemble(folder: Path, version: ModelVersion, decoder_of: ModelVersion) -> None:
    """A model folder of both, byte for byte; low-rank updates are left out, since they made the denoiser and are in it."""
    low_rank = f"{Path(LOW_RANK_FILE).parent}/"
    files = [(version, name) for name in version.manifest if not name.startswith((VAE, low_rank))]
    files += [(decoder_of, name) for name in decoder_of.manifest if name.startswith(VAE)]
    for owner, name in files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(owner.folder / name, target)


def _latents(version: ModelVersion) -> tuple[int, int] | None:
    """Channels and side of its latents; None where the row does not say."""
    config = version.config
    if "latent_channels" not in config or "latent_size" not in config:
        return None
    return int(config["latent_channels"]), int(config["latent_size"])


def _part(version: ModelVersion, prefix: str) -> dict[str, Any]:
    return {name: entry for name, entry in version.manifest.items() if name.startswith(prefix)}
