"""How often a run writes a checkpoint, validates and draws: by its number of steps, unless somebody says otherwise."""

import math
from collections.abc import Mapping
from typing import Any

from training.engine.recipe import RunSettings

# (least, parts of the run): a fortieth of the steps, but no less than every 50.
_PARTS = {"checkpoint_every": (50, 40), "validate_every": (50, 40), "sample_every": (100, 20)}
EVERY = tuple(_PARTS)
# All that says how often, how many and how; none of it changes a run's weights, or what a rehearsal of it measures.
OF_CADENCE = (*EVERY, "keep_checkpoints", "sample_steps", "sample_guidance")
_READABLE = (1, 2, 2.5, 5, 10)


def suggested_cadence(steps: int) -> dict[str, int]:
    """How often a run of so many steps does each, in numbers that a person reads at a glance."""
    return {key: _readable(max(least, steps / parts)) for key, (least, parts) in _PARTS.items()}


def with_cadence(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, with what they leave open of how often."""
    return {**suggested_cadence(int(values["steps"])), **values}


def describe_cadence(values: Mapping[str, Any]) -> str:
    """In words: "A checkpoint every 250 steps (40 in all, the last 2 stay), validation every 250 and drawings every 500."."""
    chosen = with_cadence({key: value for key, value in values.items() if value is not None})
    steps, every = int(chosen["steps"]), int(chosen["checkpoint_every"])
    # The last step has a checkpoint of its own.
    count = math.ceil(steps / every)
    kept = min(count, keeps(chosen))
    if count == 1:
        checkpoints = "One checkpoint, at the end"
    else:
        stay = f"the last {kept:,} stay" if 1 < kept < count else "the last stays" if kept == 1 else "all stay"
        checkpoints = f"A checkpoint every {every:,} steps ({count:,} in all, {stay})"
    others = [
        f"{name} every {chosen[key]:,}" if chosen[key] else f"no {name}"
        for key, name in (("validate_every", "validation"), ("sample_every", "drawings"))
    ]
    return f"{checkpoints}, {' and '.join(others)}."


def keeps(values: Mapping[str, Any]) -> int:
    """How many checkpoints a run of these settings keeps."""
    return int(values.get("keep_checkpoints") or RunSettings.keep_checkpoints)


def _readable(number: float) -> int:
    """The nearest of 10, 20, 25, 50, 100, ... by ratio, for numbers of 10 and more."""
    power = 10 ** math.floor(math.log10(number))
    return int(min((each * power for each in _READABLE), key=lambda each: abs(math.log(each / number))))
