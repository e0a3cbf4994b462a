"""The curves of a run as points: losses by source and band, validation, and speed.

A training loss is one batch of random noise levels and jumps from step to step, so it is shown as a running mean; the
validation loss is measured on a frozen grid and shown as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from training.models import RunEvent, RunMetric, TrainingRun

WINDOW = 20
MAX_POINTS = 1000
Point = tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """One chart of the run's page."""

    name: str
    title: str
    y_label: str
    log: bool = False


CHARTS = (
    Chart("loss", f"Training loss by source, mean of {WINDOW} steps", "mean squared error"),
    Chart("bands", f"Training loss by noise band, mean of {WINDOW} steps", "mean squared error"),
    Chart("validation", "Validation loss by source, on a frozen grid", "mean squared error"),
    Chart("speed", "Speed", "images/s"),
)


def curve(run: TrainingRun, name: str) -> dict[str, Any]:
    """{"series": [{"label", "points"}], "x_label", "y_label", "log", "done"} of one chart. Raises KeyError."""
    chart = {each.name: each for each in CHARTS}[name]
    series = _SERIES[name](run)
    return {
        "series": [{"label": label, "points": thin(points)} for label, points in series.items() if points],
        "x_label": "step",
        "y_label": chart.y_label,
        "log": chart.log,
        "done": not run.job.is_open,
    }


def running_mean(points: Sequence[Point], window: int = WINDOW) -> list[Point]:
    """Each point's mean with up to `window` - 1 points before it."""
    means, total = [], 0.0
    for i, (x, y) in enumerate(points):
        total += y
        if i >= window:
            total -= points[i - window][1]
        means.append((x, total / min(i + 1, window)))
    return means


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[list[float]]:
    """At most about `most` points, evenly chosen, always with the last."""
    stride = max(1, -(-len(points) // most))
    kept = [points[i] for i in range(0, len(points), stride)]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return [[x, round(y, 6)] for x, y in kept]


def _by_label(rows: Iterable[tuple[int, dict[str, Any] | None]]) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = {}
    for step, values in rows:
        for label, value in (values or {}).items():
            if isinstance(value, int | float):
                series.setdefault(label, []).append((step, value))
    return series


def _smoothed(run: TrainingRun, key: str) -> dict[str, list[Point]]:
    rows = RunMetric.objects.filter(run=run).order_by("step").values_list("step", f"values__{key}")
    return {label: running_mean(points) for label, points in sorted(_by_label(rows).items())}


def _bands(run: TrainingRun) -> dict[str, list[Point]]:
    """By band of timesteps, the noisiest first: where bands are those of sources, the colours agree with theirs."""
    series = _smoothed(run, "loss_by_band")
    noisiest_first = sorted(series, key=lambda label: [-int(part) for part in label.split("-") if part.isdecimal()])
    return {f"t {label.replace('-', ' to ')}": series[label] for label in noisiest_first}


def _validation(run: TrainingRun) -> dict[str, list[Point]]:
    rows = list(RunEvent.objects.filter(run=run, kind="validation").order_by("step").values_list("step", "detail"))
    series = dict(sorted(_by_label((step, detail.get("by_source")) for step, detail in rows).items()))
    return {**series, "all": [(step, detail["loss"]) for step, detail in rows if detail.get("loss") is not None]}


def _speed(run: TrainingRun) -> dict[str, list[Point]]:
    rows = RunMetric.objects.filter(run=run).order_by("step").values_list("step", "values__images_per_second")
    return {"images/s": [(step, rate) for step, rate in rows if rate is not None]}


_SERIES: dict[str, Callable[[TrainingRun], dict[str, list[Point]]]] = {
    "loss": lambda run: _smoothed(run, "loss_by_source"),
    "bands": _bands,
    "validation": _validation,
    "speed": _speed,
}
