"""The curves of a run as points: losses by source and band, validation, and speed.

A training loss is one batch of random noise levels and jumps from step to step, so it is shown as a running mean; the
validation loss is measured on a frozen grid and shown as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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
    Chart("validation-bands", "Validation loss by noise band, on the same grid", "mean squared error"),
    Chart("gradients", f"Gradient norm before clipping, mean of {WINDOW} steps", "L2 norm", log=True),
    Chart("rate", "Learning rate", ""),
    Chart("speed", "Speed", "images/s"),
    Chart("memory", "Most memory held, of the GPU or the process", "GB"),
)
# What only a run of pairs has: how often it prefers what raters preferred, more than its parent does.
PREFERENCE_CHART = Chart("preferred", f"Pairs told apart as raters did, mean of {WINDOW} steps", "share of pairs")
# A decoder knows no bands of noise; its loss has two parts, and its validation figures have units of their own.
DECODER_CHARTS = (
    Chart("alpha", "Alpha on validation images: overlap with the true shape", "IoU at one half"),
    Chart("psnr", "Colour on validation images, seen on white", "PSNR, dB"),
    Chart("parts", f"Training loss by part, mean of {WINDOW} steps", "weighted mean absolute error"),
    *(
        replace(
            each,
            title=each.title.replace("on a frozen grid", "on the same images each time"),
            y_label="weighted mean absolute error" if "loss" in each.title else each.y_label,
        )
        for each in CHARTS
        if "band" not in each.name
    ),
)
# What several runs are compared by: one line a run.
SHARED_CHARTS = (
    Chart("validation", "Validation loss of all sources", "mean squared error"),
    Chart("loss", f"Training loss, mean of {WINDOW} steps", "mean squared error"),
    Chart("speed", "Speed", "images/s"),
)


def charts_of(run: TrainingRun) -> tuple[Chart, ...]:
    """The charts of a run's page; the loss of pairs is no square."""
    if run.spec.get("objective") == "alpha":
        return DECODER_CHARTS
    if run.spec.get("objective") != "dpo":
        return CHARTS
    named = (replace(each, y_label="loss of a pair") if "loss" in each.title else each for each in CHARTS)
    return (PREFERENCE_CHART, *named)


def curve(run: TrainingRun, name: str) -> dict[str, Any]:
    """{"series": [{"label", "points"}], "x_label", "y_label", "log", "done"} of one chart. Raises KeyError."""
    chart = {each.name: each for each in charts_of(run)}[name]
    series = _SERIES[name](run)
    return {
        "series": [{"label": label, "points": thin(points)} for label, points in series.items() if points],
        "x_label": "step",
        "y_label": chart.y_label,
        "log": chart.log,
        "done": not run.job.is_open,
    }


def shared_curve(runs: Sequence[TrainingRun], name: str) -> dict[str, Any]:
    """The same as `curve` with one line for each run, by its number. Raises KeyError."""
    chart = {each.name: each for each in SHARED_CHARTS}[name]
    lines = {f"run {run.pk}": _SHARED[name](run) for run in runs}
    return {
        "series": [{"label": label, "points": thin(points)} for label, points in lines.items() if points],
        "x_label": "step",
        "y_label": chart.y_label,
        "log": chart.log,
        "done": not any(run.job.is_open for run in runs),
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
    # Six figures: a learning rate of 1e-7 is as exact as a loss.
    return [[x, float(f"{y:.6g}")] for x, y in kept]


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
    return _noisiest_first(_smoothed(run, "loss_by_band"))


def _noisiest_first(series: dict[str, list[Point]]) -> dict[str, list[Point]]:
    """Bands of timesteps as lines; where bands are those of sources, the colours agree with theirs."""
    labels = sorted(series, key=lambda label: [-float(part) for part in label.split("-")])
    return {f"t {label.replace('-', ' to ')}": series[label] for label in labels}


def _validations(run: TrainingRun) -> list[tuple[int, dict[str, Any]]]:
    return list(RunEvent.objects.filter(run=run, kind="validation").order_by("step").values_list("step", "detail"))


def _whole_validation(run: TrainingRun) -> list[Point]:
    return [(step, detail["loss"]) for step, detail in _validations(run) if detail.get("loss") is not None]


def _validation(run: TrainingRun) -> dict[str, list[Point]]:
    series = dict(sorted(_by_label((step, detail.get("by_source")) for step, detail in _validations(run)).items()))
    return {**series, "all": _whole_validation(run)}


def _validation_bands(run: TrainingRun) -> dict[str, list[Point]]:
    return _noisiest_first(_by_label((step, detail.get("by_band")) for step, detail in _validations(run)))


def _decoder_figure(run: TrainingRun, whole: str, by_source: str) -> dict[str, list[Point]]:
    """A figure of every validation: of all sources, and of each where there are several."""
    done = _validations(run)
    series = dict(sorted(_by_label((step, detail.get(by_source)) for step, detail in done).items()))
    every: list[Point] = [(step, detail[whole]) for step, detail in done if detail.get(whole) is not None]
    return {**(series if len(series) > 1 else {}), "all": every}


def _figure(run: TrainingRun, key: str) -> list[Point]:
    """One figure of every step that has it."""
    rows = RunMetric.objects.filter(run=run).order_by("step").values_list("step", f"values__{key}")
    return [(step, value) for step, value in rows if value is not None]


_SERIES: dict[str, Callable[[TrainingRun], dict[str, list[Point]]]] = {
    "alpha": lambda run: _decoder_figure(run, "alpha_iou", "iou_by_source"),
    "psnr": lambda run: _decoder_figure(run, "psnr_on_white", "psnr_by_source"),
    "parts": lambda run: _smoothed(run, "loss_by_part"),
    "preferred": lambda run: {"told apart": running_mean(_figure(run, "preferred"))},
    "loss": lambda run: _smoothed(run, "loss_by_source"),
    "bands": _bands,
    "validation": _validation,
    "validation-bands": _validation_bands,
    "gradients": lambda run: {"gradient norm": running_mean(_figure(run, "grad_norm"))},
    "rate": lambda run: {"learning rate": _figure(run, "lr")},
    "speed": lambda run: {"images/s": _figure(run, "images_per_second")},
    "memory": lambda run: {"memory": [(step, value / 1e9) for step, value in _figure(run, "memory_bytes")]},
}
_SHARED: dict[str, Callable[[TrainingRun], list[Point]]] = {
    "validation": _whole_validation,
    "loss": lambda run: running_mean(_figure(run, "loss")),
    "speed": lambda run: _figure(run, "images_per_second"),
}
