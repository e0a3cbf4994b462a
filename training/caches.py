"""The cache of latents and texts on the machine that trains: how large it may get, and trimming it to that."""

import logging
from pathlib import Path

from django.conf import settings

from training.engine.trimming import Trimmed, trim_cache

GIB = 2**30
logger = logging.getLogger(__name__)


def encodings_dir() -> Path:
    """The folder that all runs of this machine share."""
    return Path(settings.CACHE_DIR) / "encodings"


def trim() -> Trimmed:
    """Delete what was used longest ago, until the cache keeps to TRAINING_CACHE_GIB, or the rest is in use."""
    trimmed = trim_cache(encodings_dir(), settings.TRAINING_CACHE_GIB * GIB)
    if trimmed.deleted_files:
        logger.info(in_words(trimmed))
    return trimmed


def trim_quietly() -> None:
    """Trim, where a disk that does not let us is no reason for anything else to fail."""
    try:
        trim()
    except OSError:
        logger.exception("The cache of latents and texts could not be trimmed.")


def in_words(trimmed: Trimmed) -> str:
    """What trimming did, for a person."""
    return (
        f"Deleted {_counted(trimmed.deleted_files)} ({trimmed.deleted_bytes / GIB:.1f} GiB) of the cache of latents and texts. "
        f"It takes {trimmed.left_bytes / GIB:.1f} of {settings.TRAINING_CACHE_GIB} GiB"
        + (f"; {trimmed.held_bytes / GIB:.1f} GiB that should go are in use." if trimmed.held_bytes else ".")
    )


def _counted(files: int) -> str:
    return "1 file" if files == 1 else f"{files:,} files"
