"""Whether the disk has room for what a run will write."""

import shutil
from pathlib import Path

from training.engine.learner import Learner
from training.engine.optimizers import moment_bytes
from training.engine.recipe import RunRefused, RunSettings


def check_disk(folder: Path, settings: RunSettings, learner: Learner, cache: int = 0) -> None:
    """Raise `RunRefused`, to be tried again, where the disk has no room for the checkpoints and the result, and for so many
    bytes that the cache is still without, which may lie on another disk."""
    needed = needed_bytes(folder, settings, learner)
    free = shutil.disk_usage(folder).free
    missing = "the latents and texts that are not in the cache yet need"
    if cache and not _shares_disk(folder, settings):
        left = shutil.disk_usage(folder / settings.cache_dir).free
        if left < cache:
            raise RunRefused(
                f"The cache's disk has {_gigabytes(left)} free; {missing} {_gigabytes(cache)}.", retry=True
            )
        cache = 0
    if free < needed + cache:
        said = f"The disk has {_gigabytes(free)} free; the run's checkpoints and result need {_gigabytes(needed)}"
        raise RunRefused(f"{said}, and {missing} {_gigabytes(cache)}." if cache else f"{said}.", retry=True)


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
    return needed_bytes(folder, settings, learner) if _shares_disk(folder, settings) else 0


def _shares_disk(folder: Path, settings: RunSettings) -> bool:
    """Whether the cache lies on the disk of the run's folder."""
    return (folder / settings.cache_dir).stat().st_dev == folder.stat().st_dev


def _gigabytes(size: int) -> str:
    return f"{max(0, size) / 1e9:.1f} GB"
