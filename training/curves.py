"""The curves of a run as points: losses by source and band, validation, and speed.

A training loss is one batch of random noise levels and jumps from step to step, so it is shown as a running mean; the
validation loss is measured on a frozen grid and shown as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.metric_points import (
    EXACT,
    WINDOW,
    Figure,
    Mark,
    Point,
    closed_steps,
    labels_of,
    mark_of,
    read_points,
)
from training.models import RunEvent, TrainingRun


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
# What several runs are compared by, beside their losses: one line a run.
SHARED_CHARTS = tuple(each for each in CHARTS if each.name in {"gradients", "rate", "speed", "memory"})
# What a loss is of, by the objective of a run (all others are the square of an error), and its unit. One axis has one kind.
LOSSES = {
    "": ("denoising", "mean squared error"),
    "dpo": ("pairs", "loss of a pair"),
    "alpha": ("transparency", "weighted mean absolute error"),
}
# Parts a chart's name from the kind of loss, where there is more than one.
OF_KIND = "~"
# The chart of one band that several runs share is named by it.
BAND_CHART = "band-"


def charts_of(run: TrainingRun) -> tuple[Chart, ...]:
    """The charts of a run's page; the loss of pairs is no square."""
    if run.spec.get("objective") == "alpha":
        return DECODER_CHARTS
    if run.spec.get("objective") != "dpo":
        return CHARTS
    named = (replace(each, y_label="loss of a pair") if "loss" in each.title else each for each in CHARTS)
    return (PREFERENCE_CHART, *named)


def shared_charts(runs: Sequence[TrainingRun]) -> tuple[Chart, ...]:
    """The charts that runs are compared by: for each kind of loss that they have those of losses, by band too where runs share
    one, then those of all."""
    kinds = list(dict.fromkeys(map(_kind_of_loss, runs))) or [""]
    losses = (chart for kind in kinds for chart in _loss_charts(kind, runs, is_alone=len(kinds) == 1))
    return (*losses, *SHARED_CHARTS)


def _kind_of_loss(run: TrainingRun) -> str:
    objective = str(run.spec.get("objective"))
    return objective if objective in LOSSES else ""


def _loss_charts(kind: str, runs: Sequence[TrainingRun], *, is_alone: bool) -> Iterator[Chart]:
    """A run without bands, as a decoder's or one that has not begun, takes no band from the others."""
    banded = [labels for labels in labels_of(_of_kind(runs, kind), "loss_by_band") if labels]
    bands = _by_noise(set.intersection(*banded) if banded else ())
    words, unit = LOSSES[kind]
    name, title = ("", "") if is_alone else (OF_KIND + kind, f" ({words})")
    yield Chart(f"validation{name}", f"Validation loss of all sources{title}", unit)
    yield Chart(f"loss{name}", f"Training loss, mean of {WINDOW} steps{title}", unit)
    for label in bands:
        yield Chart(
            f"{BAND_CHART}{label}{name}",
            f"Training loss at {name_of_band(label)}, mean of {WINDOW} steps{title}",
            unit,
        )


def _of_kind(runs: Sequence[TrainingRun], kind: str) -> list[TrainingRun]:
    return [run for run in runs if _kind_of_loss(run) == kind]


def curve(run: TrainingRun, name: str, seen: str = "") -> dict[str, Any]:
    """{"series": [{"label", "points"}], "x_label", "y_label", "log", "done", "seen", "partial"} of one chart.

    With the "seen" of an answer that the reader has, the next is "partial": each of its series says "from" which step
    on it replaces the points. Raises KeyError.
    """
    chart = {each.name: each for each in charts_of(run)}[name]
    if name in _VALIDATIONS:
        lines = {label: (thin(points), 0) for label, points in _VALIDATIONS[name](run).items()}
        return _answer(chart, [run], lines)
    mark = mark_of(run)
    since = closed_steps(run, mark, seen)
    series = _named(name, read_points(run, FIGURES[name], mark, since))
    lines = {label: (_rounded(points), since) for label, points in series.items()}
    return _answer(chart, [run], lines, seen=str(mark) if mark.version else "", partial=since > 0)


def shared_curve(runs: Sequence[TrainingRun], name: str, seen: str = "") -> dict[str, Any]:
    """The same as `curve` with one line for each run that has the chart, by its number. Raises KeyError."""
    chart = {each.name: each for each in shared_charts(runs)}[name]
    name, several, kind = name.partition(OF_KIND)
    runs = _of_kind(runs, kind) if several else runs
    if name == "validation":
        return _answer(chart, runs, {f"run {run.pk}": (thin(_whole_validation(run)), 0) for run in runs})
    marks = [mark_of(run) for run in runs]
    since = _closed_by_all(runs, marks, seen)
    band = name.removeprefix(BAND_CHART) if name.startswith(BAND_CHART) else ""
    figure = FIGURES["bands"] if band else WHOLE_LOSS if name == "loss" else FIGURES[name]
    lines = {
        f"run {run.pk}": (_rounded(read_points(run, figure, mark, step).get(band, [])), step)
        for run, mark, step in zip(runs, marks, since, strict=True)
    }
    return _answer(chart, runs, lines, seen=",".join(map(str, marks)), partial=any(since))


def thin(points: Sequence[Point], most: int = EXACT) -> list[list[float]]:
    """All of at most `most` points; of more, the lowest and the highest of each of about `most` / 2 parts, and the last."""
    width = 1 if len(points) <= most else -(-2 * len(points) // most)
    kept: set[Point] = set(points[-1:])
    for start in range(0, len(points), width):
        part = points[start : start + width]
        kept |= {min(part, key=_y), max(part, key=_y)}
    return _rounded(sorted(kept))


def name_of_band(label: str) -> str:
    return f"t {label.replace('-', ' to ')}"


def _answer(
    chart: Chart,
    runs: Sequence[TrainingRun],
    lines: Mapping[str, tuple[list[list[float]], int]],
    *,
    seen: str = "",
    partial: bool = False,
) -> dict[str, Any]:
    return {
        "series": [
            {"label": label, "points": points, **({"from": since} if partial else {})}
            for label, (points, since) in lines.items()
            if points
        ],
        "x_label": "step",
        "y_label": chart.y_label,
        "log": chart.log,
        "done": not any(run.job.is_open for run in runs),
        "seen": seen,
        "partial": partial,
    }


def _closed_by_all(runs: Sequence[TrainingRun], marks: Sequence[Mark], seen: str) -> list[int]:
    """Up to which step the reader has each run; nothing of any, where one of them went back or has other buckets."""
    known = seen.split(",")
    if len(known) != len(runs):
        return [0] * len(runs)
    since = [closed_steps(run, mark, each) for run, mark, each in zip(runs, marks, known, strict=True)]
    begun = [step for step, mark in zip(since, marks, strict=True) if mark.last]
    return since if all(begun) else [0] * len(runs)


def _y(point: Point) -> float:
    return point[1]


def _rounded(points: Iterable[Point]) -> list[list[float]]:
    # Six figures: a learning rate of 1e-7 is as exact as a loss.
    return [[x, float(f"{y:.6g}")] for x, y in points]


def _named(name: str, series: dict[str, list[Point]]) -> dict[str, list[Point]]:
    if name == "bands":
        return _noisiest_first(series)
    return {NAMES.get(name, label): points for label, points in series.items()}


def _by_label(rows: Iterable[tuple[int, dict[str, Any] | None]]) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = {}
    for step, values in rows:
        for label, value in (values or {}).items():
            if isinstance(value, int | float):
                series.setdefault(label, []).append((step, value))
    return series


def _by_noise(labels: Iterable[str]) -> list[str]:
    return sorted(labels, key=lambda label: [-float(part) for part in label.split("-")])


def _noisiest_first(series: dict[str, list[Point]]) -> dict[str, list[Point]]:
    """Bands of timesteps as lines; where bands are those of sources, the colours agree with theirs."""
    return {name_of_band(label): series[label] for label in _by_noise(series)}


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


FIGURES = {
    "parts": Figure("loss_by_part", by_label=True, smooth=True),
    "preferred": Figure("preferred", smooth=True),
    "loss": Figure("loss_by_source", by_label=True, smooth=True),
    "bands": Figure("loss_by_band", by_label=True, smooth=True),
    "gradients": Figure("grad_norm", smooth=True),
    "rate": Figure("lr"),
    "speed": Figure("images_per_second"),
    "memory": Figure("memory_bytes", scale=1e9),
}
WHOLE_LOSS = Figure("loss", smooth=True)
# What a chart of one line calls it.
NAMES = {
    "preferred": "told apart",
    "gradients": "gradient norm",
    "rate": "learning rate",
    "speed": "images/s",
    "memory": "memory",
}
# Validations are few beside the steps, and each of their charts is sent whole.
_VALIDATIONS: dict[str, Callable[[TrainingRun], dict[str, list[Point]]]] = {
    "alpha": lambda run: _decoder_figure(run, "alpha_iou", "iou_by_source"),
    "psnr": lambda run: _decoder_figure(run, "psnr_on_white", "psnr_by_source"),
    "validation": _validation,
    "validation-bands": _validation_bands,
}
