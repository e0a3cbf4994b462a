"""Where Min-SNR leaves the loss's weight: the share of every band, beside the share of draws that falls into it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.engine.bands import Schedule, TableRow, draw_shares, report_regions, table_problems
from training.engine.noise import NoiseSchedule

# A band with less of the loss's weight than this hardly learns.
LITTLE = 0.05
PREDICTIONS = {"epsilon": "predicts the noise", "v_prediction": "predicts v", "sample": "predicts the image"}


@dataclass(frozen=True)
class RegionWeight:
    """A part of the noise axis: its share of draws and of the loss's weight, both in [0, 1]."""

    name: str
    draws: float
    weight: float

    @property
    def is_starved(self) -> bool:
        return self.weight < LITTLE and self.weight < self.draws


def weigh_regions(schedule: NoiseSchedule, rows: Sequence[TableRow], values: Mapping[str, Any]) -> list[RegionWeight]:
    """Every band of the table, or where all rows have the full axis its noisiest tenth and the rest, noise first.

    `values` are a recipe's settings with `min_snr_gamma`. A region's weight is the share of its draws times the mean of
    Min-SNR over its timesteps, which training draws evenly. Empty where no weight is left to share: all that is drawn is
    pure noise, of which v says nothing.
    """
    gamma = float(values["min_snr_gamma"])
    # Importance weights bring fixed shares back to the natural mixture.
    is_natural = values.get("mixture") != "shares" or bool(values.get("importance_weights"))
    shares = draw_shares(schedule, rows, "shares")
    regions = list(reversed(report_regions(schedule, rows)))
    bands = [schedule.timesteps_in(row.band) for row in rows]
    is_split = any(band != schedule.axis for band in bands)
    names, draws, weights = [], [], []
    for region in regions:
        inside = range(int(region.start), int(region.stop))
        holders = [i for i, band in enumerate(bands) if band.start <= region.start and region.stop <= band.stop]
        draws.append(
            schedule.probability(region)
            if is_natural
            else sum(shares[i] * schedule.probability(region) / schedule.probability(bands[i]) for i in holders)
        )
        mean = sum(schedule.min_snr_weight(t, gamma) for t in inside) / len(inside)
        weights.append(draws[-1] * mean)
        sources = " and ".join(f"“{rows[i].name}”" for i in holders)
        where = f"t {inside.start} to {inside.stop - 1}"
        names.append(f"{sources} ({where})" if is_split else where)
    total = sum(weights)
    if not total:
        return []
    return [
        RegionWeight(name, drawn, weight / total) for name, drawn, weight in zip(names, draws, weights, strict=True)
    ]


def say_weights(schedule: Schedule, rows: Sequence[TableRow], values: Mapping[str, Any]) -> tuple[str, str]:
    """(note, warning) for a recipe's settings on a schedule; both empty where Min-SNR has no say, and of a table that
    cannot be trained, whose problems are said instead."""
    gamma = float(values.get("min_snr_gamma") or 0)
    has_noise = (values.get("objective") or "denoise") == "denoise"
    if not isinstance(schedule, NoiseSchedule) or not has_noise or gamma <= 0:
        return "", ""
    parts = [] if table_problems(schedule, rows) else weigh_regions(schedule, rows, values)
    if not parts:
        return "", ""
    shares = "; ".join(f"{part.name} {_percent(part.weight)} for {_percent(part.draws)} of the draws" for part in parts)
    named = f"Min-SNR γ = {gamma:g}"
    note = f"The loss’s weight under {named} on a model that {PREDICTIONS[schedule.prediction_type]}: {shares}."
    starved = " and ".join(part.name for part in parts if part.is_starved)
    if not starved:
        return note, ""
    return (
        note,
        f"{named} takes nearly all weight off {starved}, which would hardly learn. Left empty, it weighs all alike.",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.001 else "less than 0.1%"
