"""Points of curves: buckets that lose no spike, means that lag by nothing but their window, and what came since."""

import random
from itertools import pairwise
from typing import Any

import pytest
from django.db import transaction
from django.urls import reverse

from tests.training.factories import make_run
from training.curves import curve, shared_charts, shared_curve, thin
from training.metric_points import BUCKETS, EXACT, Mark, width_of_buckets
from training.models import RunMetric, TrainingRun

SPIKE = 500.0
HIDDEN = 1777


def record(run: TrainingRun, steps: range, **more: Any) -> None:
    """Metrics of made-up figures, the same for the same steps; `more` by step stands above them."""
    rows = []
    for step in steps:
        drawn = random.Random(step)
        sources = {"style": drawn.random(), **({"content": drawn.random()} if step % 7 == 0 else {})}
        values = {"loss": drawn.random(), "lr": step / 1e9, "grad_norm": drawn.random(), "memory_bytes": 2e9 + step}
        rows.append({**values, "loss_by_source": sources, "loss_by_band": {"0-900": drawn.random(), "900-999": 1.0}})
    RunMetric.objects.bulk_create(
        RunMetric(run=run, step=step, values={**values, **more.get(f"at_{step}", {})})
        for step, values in zip(steps, rows, strict=True)
    )


def points_of(answer: dict[str, Any]) -> dict[str, list[list[float]]]:
    return {line["label"]: line["points"] for line in answer["series"]}


def merged(known: dict[str, Any], answer: dict[str, Any]) -> dict[str, list[list[float]]]:
    """As static/js/curve-data.js does it."""
    lines = points_of(known)
    for line in answer["series"]:
        lines[line["label"]] = [*(p for p in lines[line["label"]] if p[0] < line["from"]), *line["points"]]
    return lines


def running_mean(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    values = [y for _, y in points]
    return [(x, sum(values[max(0, i - 19) : i + 1]) / min(i + 1, 20)) for i, (x, _) in enumerate(points)]


def test_thinning_keeps_the_last_point_and_every_spike():
    points = [(float(i), SPIKE if i == HIDDEN else -SPIKE if i == 901 else float(i % 3)) for i in range(2503)]
    kept = thin(points, most=1000)
    assert len(kept) <= 1001
    assert [kept[0], kept[-1]] == [[0.0, 0.0], [2502.0, 0.0]]
    assert [[float(HIDDEN), SPIKE], [901.0, -SPIKE]] == [
        each for each in sorted(kept, reverse=True) if abs(each[1]) > 3
    ]
    assert kept == sorted(kept)
    assert thin([]) == []
    assert len(thin(points[:1000], most=1000)) == 1000


def test_buckets_are_single_steps_and_then_powers_of_two():
    assert [width_of_buckets(last) for last in (0, EXACT, EXACT + 1, 2000, 2100)] == [1, 1, 2, 4, 8]
    for last in range(1, 3_000_000, 9973):
        assert last // width_of_buckets(last) <= max(BUCKETS, EXACT if last <= EXACT else 0)


@pytest.mark.django_db
class TestOfOneRun:
    def test_a_short_run_is_shown_as_it_is(self):
        run = make_run()
        record(run, range(1, EXACT + 1), at_30={"grad_norm": None})
        rows = list(run.metrics.order_by("step").values_list("step", "values"))
        norms = [(step, values["grad_norm"]) for step, values in rows if step != 30]
        sources = {
            label: [(step, v["loss_by_source"][label]) for step, v in rows if label in v["loss_by_source"]]
            for label in ("content", "style")
        }
        assert points_of(curve(run, "rate")) == {
            "learning rate": [[step, float(f"{values['lr']:.6g}")] for step, values in rows]
        }
        means = {**points_of(curve(run, "gradients")), **points_of(curve(run, "loss"))}
        assert list(means) == ["gradient norm", "content", "style"]
        for label, values in {"gradient norm": norms, **sources}.items():
            expected = running_mean(values)
            assert [x for x, _ in means[label]] == [x for x, _ in expected]
            assert [y for _, y in means[label]] == pytest.approx([y for _, y in expected], rel=1e-5)
        assert points_of(curve(run, "memory"))["memory"][0] == [1, 2.0]
        assert list(points_of(curve(run, "bands"))) == ["t 900 to 999", "t 0 to 900"]

    def test_a_long_run_is_bounded_and_loses_no_spike(self):
        run = make_run()
        peaks = {f"at_{HIDDEN}": {"lr": SPIKE, "grad_norm": 20 * SPIKE}, "at_1001": {"lr": -SPIKE}}
        record(run, range(1, 5002), **peaks)
        points = points_of(curve(run, "rate"))["learning rate"]
        assert len(points) <= 2 * BUCKETS + 3
        assert [point for point in points if abs(point[1]) > 1] == [[1001, -SPIKE], [HIDDEN, SPIKE]]
        assert points[-1][0] == 5001
        assert all(a[0] < b[0] for a, b in pairwise(points))
        # Of a mean, which a spike raises for as long as its window, the top and what falls away from it.
        assert max(y for _, y in points_of(curve(run, "gradients"))["gradient norm"]) > SPIKE

    @pytest.mark.parametrize("name", ["rate", "loss", "bands", "gradients"])
    @pytest.mark.parametrize("last", [600, 3000])
    def test_what_came_since_makes_the_whole_answer(self, name, last):
        run = make_run()
        record(run, range(1, last + 1))
        before = curve(run, name)
        record(run, range(last + 1, last + 60))
        since = curve(run, name, before["seen"])
        assert (before["partial"], since["partial"]) == (False, True)
        assert all(line["points"][0][0] > last - 60 for line in since["series"])
        whole = curve(run, name)
        assert merged(before, since) == points_of(whole)
        assert since["seen"] == whole["seen"]

    def test_a_run_that_went_back_is_read_anew(self):
        run = make_run()
        record(run, range(1, 601))
        before = curve(run, "rate")
        # As the recorder takes a file that was replaced: every row is written again, in a transaction of its own.
        with transaction.atomic():
            RunMetric.objects.bulk_create(
                [RunMetric(run=run, step=step, values={"lr": 1.0}) for step in range(1, 701)],
                update_conflicts=True,
                unique_fields=["run", "step"],
                update_fields=["values"],
            )
        after = curve(run, "rate", before["seen"])
        assert not after["partial"]
        assert {y for _, y in points_of(after)["learning rate"]} == {1.0}

    @pytest.mark.parametrize(
        "seen", ["", "1", "1.2", "1.x.3", "1.9999999999.3", "1.599.0", "0.0.", "1.-1.5", "8.592.1"]
    )
    def test_nonsense_of_a_reader_is_the_whole_answer(self, seen):
        run = make_run()
        record(run, range(1, 31))
        assert curve(run, "rate", seen) == curve(run, "rate")


@pytest.mark.django_db
class TestOfSeveralRuns:
    def test_they_share_rates_gradients_memory_speed_and_their_common_bands(self):
        first, second, bare = (make_run() for _ in range(3))
        record(first, range(1, 31))
        record(second, range(1, 31), at_4={"loss_by_band": {"0-900": 1.0, "900-999": 2.0, "0-500": 3.0}})
        bare.metrics.create(step=1, values={"loss": 3.0, "images_per_second": 7.0})
        runs = [second, first, bare]
        charts = {chart.name: chart for chart in shared_charts(runs)}
        assert list(charts) == [
            "validation", "loss", "band-900-999", "band-0-900", "gradients", "rate", "speed", "memory",
        ]  # fmt: skip
        assert "t 900 to 999" in charts["band-900-999"].title
        both = [f"run {second.pk}", f"run {first.pk}"]
        for name, own, label in (
            ("gradients", "gradients", "gradient norm"),
            ("rate", "rate", "learning rate"),
            ("memory", "memory", "memory"),
            ("band-0-900", "bands", "t 0 to 900"),
        ):
            shared = points_of(shared_curve(runs, name))
            assert list(shared) == both
            assert shared[both[1]] == points_of(curve(first, own))[label]
        assert shared_curve(runs, "gradients")["log"]
        assert points_of(shared_curve(runs, "speed")) == {f"run {bare.pk}": [[1, 7.0]]}
        assert points_of(shared_curve(runs, "loss"))[f"run {bare.pk}"] == [[1, 3.0]]
        with pytest.raises(KeyError):
            shared_curve(runs, "band-0-500")

    def test_losses_of_other_kinds_have_charts_of_their_own(self):
        squares, pairs, decoder = (make_run() for _ in range(3))
        for run, objective in ((pairs, "dpo"), (decoder, "alpha")):
            run.spec["objective"] = objective
            run.save()
        for loss, run in enumerate((squares, pairs, decoder)):
            run.metrics.create(step=1, values={"loss": float(loss), "lr": 0.1})
        runs = [squares, pairs, decoder]
        charts = {chart.name: chart for chart in shared_charts(runs)}
        assert list(charts) == [
            "validation~", "loss~", "validation~dpo", "loss~dpo", "validation~alpha", "loss~alpha",
            "gradients", "rate", "speed", "memory",
        ]  # fmt: skip
        units = {name: chart.y_label for name, chart in charts.items()}
        assert (units["loss~"], units["loss~dpo"]) == ("mean squared error", "loss of a pair")
        assert charts["loss~alpha"].title.endswith("(transparency)")
        assert points_of(shared_curve(runs, "loss~dpo")) == {f"run {pairs.pk}": [[1, 1.0]]}
        assert points_of(shared_curve(runs, "loss~")) == {f"run {squares.pk}": [[1, 0.0]]}
        assert len(shared_curve(runs, "rate")["series"]) == 3
        # Two of one kind are one chart, with its own unit.
        assert [chart.y_label for chart in shared_charts([pairs])][:2] == ["loss of a pair"] * 2
        with pytest.raises(KeyError):
            shared_curve([pairs], "loss~dpo")

    def test_each_is_sent_from_where_the_reader_has_it(self):
        runs = [make_run(), make_run(), make_run()]
        record(runs[0], range(1, 301))
        record(runs[1], range(1, 3001))
        before = shared_curve(runs, "band-0-900")
        record(runs[0], range(301, 331))
        record(runs[1], range(3001, 3031))
        since = shared_curve(runs, "band-0-900", before["seen"])
        assert [line["from"] for line in since["series"]] == [300, 3000]
        assert merged(before, since) == points_of(shared_curve(runs, "band-0-900"))
        RunMetric.objects.filter(run=runs[1], step__gt=20).delete()
        assert not shared_curve(runs, "band-0-900", since["seen"])["partial"]


@pytest.mark.django_db
def test_pages_send_what_came_since(client, sign_in):
    sign_in("auditor")
    run = make_run()
    record(run, range(1, 31))
    page = client.get(reverse("runs_compare"), {"run": [run.pk]})
    assert [chart.name for chart in page.context["charts"]] == [chart.name for chart in shared_charts([run])]
    assert "chart=band-0-900" in page.content.decode()
    for url, chart in ((reverse("run_curves", args=[run.pk]), "bands"), (reverse("runs_compare_curves"), "band-0-900")):
        asked = {"chart": chart, "run": run.pk}
        whole = client.get(url, asked).json()
        since = client.get(url, {**asked, "seen": whole["seen"]}).json()
        assert (whole["partial"], since["partial"]) == (False, True)
        assert {len(line["points"]) for line in since["series"]} == {1}
    assert client.get(reverse("runs_compare_curves"), {"run": run.pk, "chart": "band-0-1"}).status_code == 404


def test_a_mark_is_written_for_the_reader():
    assert str(Mark(3000, 8, 2992, "77")) == "8.2992.77"
