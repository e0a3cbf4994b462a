"""Whether the disk has room for what a run will write."""

import shutil
import sys
from pathlib import Path

from training.engine.learner import Learner
from training.engine.optimizers import moment_bytes
from training.engine.recipe import RunRefused, RunSettings
from training.engine.trimming import cache_bytes, trim_cache

MISSING = "the latents and texts that are not in the cache yet need"


def check_disk(folder: Path, settings: RunSettings, learner: Learner) -> None:
    """Raise `RunRefused`, to be tried again, where the disk has no room for the checkpoints and the result, not even without
    the cache."""
    needed, free = needed_bytes(folder, settings, learner), shutil.disk_usage(folder).free
    cache = folder / settings.cache_dir
    if free < needed and not (cache.is_dir() and _shares_disk(folder, cache) and free + cache_bytes(cache) >= needed):
        raise RunRefused(f"{_needs(free, needed)}.", retry=True)


def make_disk_room(folder: Path, settings: RunSettings, learner: Learner, missing: int) -> None:
    """Where the disk lacks room for the checkpoints, the result and the `missing` bytes that the cache, which may lie on
    another disk, is still without: delete of the cache what was used longest ago. What this run and others use is held by
    then and stays. Raise `RunRefused`, to be tried again, where that is not enough."""
    needed, cache = needed_bytes(folder, settings, learner), folder / settings.cache_dir
    if _shares_disk(folder, cache):
        free = _free_after_trimming(folder, cache, needed + missing)
        if free < needed + missing:
            also = f", and {MISSING} {_gigabytes(missing)}" if missing else ""
            raise RunRefused(f"{_needs(free, needed)}{also}.", retry=True)
        return
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunRefused(f"{_needs(free, needed)}.", retry=True)
    left = _free_after_trimming(cache, cache, missing)
    if left < missing:
        raise RunRefused(f"The cache's disk has {_gigabytes(left)} free; {MISSING} {_gigabytes(missing)}.", retry=True)


def _free_after_trimming(disk: Path, cache: Path, wanted: int) -> int:
    """The free bytes of the disk, once the cache on it has given what it can where they are fewer than wanted."""
    free = shutil.disk_usage(disk).free
    if free >= wanted:
        return free
    trimmed = trim_cache(cache, cache_bytes(cache) - (wanted - free))
    if trimmed.deleted_files:
        sys.stderr.write(
            f"The disk was short of room: {_gigabytes(trimmed.deleted_bytes)} of the cache that no run uses were deleted, what "
            f"was used longest ago first; files: {trimmed.deleted_files}.\n"
        )
    return shutil.disk_usage(disk).free


def needed_bytes(folder: Path, settings: RunSettings, learner: Learner) -> int:
    """What the run's checkpoints and result will take, besides the checkpoints that are there."""
    weights = sum(each.numel() for each in learner.parameters.values())
    moments = sum(moment_bytes(settings.optimizer, each.shape) for each in learner.parameters.values())
    # Weights, the optimizer's moments, and the average; a new checkpoint is whole before an old one goes.
    checkpoint = 4 * weights * (1 + (learner.ema is not None)) + moments
    kept = sum(each.stat().st_size for each in folder.glob("checkpoints/*/*"))
    result = sum(each.stat().st_size for each in (folder / settings.parent).rglob("*") if each.is_file())
    return checkpoint * (settings.keep_checkpoints + 1) + result - kept


def bytes_to_spare(folder: Path, settings: RunSettings, learner: Learner) -> int:
    """What of the cache's disk the run's checkpoints and result will need."""
    return needed_bytes(folder, settings, learner) if _shares_disk(folder, folder / settings.cache_dir) else 0


def _shares_disk(folder: Path, cache: Path) -> bool:
    """Whether the cache lies on the disk of the run's folder."""
    return cache.stat().st_dev == folder.stat().st_dev


def _needs(free: int, needed: int) -> str:
    return f"The disk has {_gigabytes(free)} free; the run's checkpoints and result need {_gigabytes(needed)}"


def _gigabytes(size: int) -> str:
    return f"{max(0, size) / 1e9:.1f} GB"
