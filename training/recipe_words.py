"""Recipes as people read them, in one line."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.engine.bands import Schedule
from training.engine.recipe import SHAPE_DEFAULTS
from training.models import Recipe
from training.recipe_rows import Row
from training.recipes import hyperparameters_of, rows_of


def describe(recipe: Recipe, schedule: Schedule | None = None, changed: Mapping[str, Any] | None = None) -> str:
    """The recipe in one line: "Style Tailoring: content faces v3 for t > 900, style die-cut v2 for t ≤ 900, 300 steps".

    Without a schedule the edges are given as log-SNR. `changed` are values that a run took instead of the recipe's.
    """
    values = {**hyperparameters_of(recipe), **(changed or {})}
    is_decoder = values.get("objective") == "alpha"
    names = {
        "full": "all weights of the decoder" if is_decoder else "all weights",
        "lora": f"LoRA {values.get('lora_rank', 16)}",
        "dora": f"DoRA {values.get('lora_rank', 16)}",
    }
    method = names[values["method"]]
    images = int(values["batch_size"]) * int(values.get("gradient_accumulation") or 1)
    pairs = " pairs" if values.get("objective") == "dpo" else ""
    shapes = ""
    if values.get("shapes") == "aspect":
        greatest = values.get("greatest_aspect", SHAPE_DEFAULTS["greatest_aspect"])
        shapes = f", images near their own aspect ratio up to {greatest:g}"
        shapes += ", none enlarged" if values.get("never_enlarge") else ""
    shards = ", in shards" if values.get("sharded") else ""
    tail = f"{values['steps']} steps of {images}{pairs}, {method}{shapes}{shards}"
    return f"{recipe.get_preset_display()}: {describe_sources(recipe, schedule)}, {tail}"


def describe_sources(recipe: Recipe, schedule: Schedule | None = None) -> str:
    """The table in one line: "content faces v3 for t > 900, style die-cut v2 for t ≤ 900"."""
    rows = rows_of(recipe)
    return ", ".join(
        f"{row.name} {row.data}{_captions(row)}{_where(row, schedule)}{_weighted(row, rows)}" for row in rows
    )


def _captions(row: Row) -> str:
    if row.is_without_words:
        return " without captions"
    if row.uncaptioned:
        return f" ({row.uncaptioned:,} of its {row.data.entry_count:,} images without a caption)"
    return ""


def _where(row: Row, schedule: Schedule | None) -> str:
    low, high = row.band.log_snr_min, row.band.log_snr_max
    if low is None and high is None:
        return ""
    if schedule is None:
        edges = [f"at or above {low:.3f}" if low is not None else "", f"below {high:.3f}" if high is not None else ""]
        return f" for log-SNR {' and '.join(edge for edge in edges if edge)}"
    if low is None:
        return f" for t > {schedule.timestep_at(high)}"  # type: ignore[arg-type]
    if high is None:
        return f" for t ≤ {schedule.timestep_at(low)}"
    return f" for {schedule.timestep_at(high)} < t ≤ {schedule.timestep_at(low)}"


def _weighted(row: Row, rows: Sequence[Row]) -> str:
    return f" (weight {row.weight:g})" if len({each.weight for each in rows}) > 1 else ""
