"""How a worker starts the trainer: alone, or as several processes that train one run together."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

from training.runs import images_per_step


def process_count(values: Mapping[str, Any]) -> int:
    """How many processes train a run of these settings: TRAINER_PROCESSES, but no more than a step has images to share."""
    return min(int(settings.TRAINER_PROCESSES), images_per_step(values))


def trainer_command(folder: Path, values: Mapping[str, Any]) -> list[str]:
    """The program that trains the run in the folder, whose settings these are."""
    count = process_count(values)
    program = ["training.engine.processes", str(count)] if count > 1 else ["training.engine"]
    return [sys.executable, "-m", *program, str(folder)]


def warm_module(values: Mapping[str, Any]) -> str | None:
    """What forks that program (see `jobs.warm`); several processes of a run are started cold."""
    return "training.engine.warm" if process_count(values) == 1 else None
