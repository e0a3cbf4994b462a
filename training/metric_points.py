"""A run's metrics as points, put into buckets of steps by the database.

A bucket keeps its lowest and its highest point, so that no spike is lost, however long the run; a run of at most
`EXACT` steps has a bucket for each step and is shown as it is. Buckets are as wide as a power of two, which changes
seldom: while it stays, whoever has the closed buckets is sent only the steps since.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from training.models import RunMetric, TrainingRun

WINDOW = 20
EXACT = 1000
BUCKETS = 500
# A source or band that a run has is drawn about once in so many steps, or is not looked for.
STEPS_WITH_ALL_LABELS = 300
Point = tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """What of a step's values is shown: a number, or an object's numbers by label; as it is or as a running mean."""

    key: str
    by_label: bool = False
    smooth: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Mark:
    """How far a reader has closed buckets: up to the step `since`, the first of the last bucket.

    `version` is the xmin of the last row before it. Whenever a run goes back, its file of metrics is replaced and read
    again from the beginning (training.run_records), which writes every row anew: another version says that what the
    reader has is no longer so.
    """

    last: int
    width: int
    since: int
    version: str

    def __str__(self) -> str:
        return f"{self.width}.{self.since}.{self.version}"


def width_of_buckets(last: int) -> int:
    """Steps in a bucket of a run that is at step `last`: 1, or a power of two that makes at most about `BUCKETS`."""
    width = 1
    while last > EXACT and last // width > BUCKETS:
        width *= 2
    return width


def mark_of(run: TrainingRun) -> Mark:
    """Where the run's last bucket begins now. To be read before the points: what is written between is sent twice."""
    last = RunMetric.objects.filter(run=run).order_by("-step").values_list("step", flat=True).first() or 0
    width = width_of_buckets(last)
    since = last // width * width
    return Mark(last, width, since, _version(run, since))


def closed_steps(run: TrainingRun, mark: Mark, seen: str) -> int:
    """The step before which the reader of an earlier mark, as written, has all points; 0 where it has to read anew."""
    width, _, rest = seen.partition(".")
    since, _, version = rest.partition(".")
    if width != str(mark.width) or not (since.isdecimal() and len(since) < 10) or not version:
        return 0
    step = int(since)
    return step if step <= mark.since and _version(run, step) == version else 0


def read_points(run: TrainingRun, figure: Figure, mark: Mark, since: int = 0) -> dict[str, list[Point]]:
    """Points by label ("" for a number alone), in the order of steps, from the step `since` to that of the mark.

    Reads those rows by the index of run and step, and for a running mean what each label's first points need besides.
    """
    asked: dict[str, str | int] = {
        "run": run.pk,
        "key": figure.key,
        "since": since,
        "last": mark.last,
        "width": mark.width,
        "newest": mark.since,
        "before": WINDOW - 1,
    }
    with connection.cursor() as cursor:
        cursor.execute(_query(figure, since), asked)
        series: dict[str, list[Point]] = {}
        for label, step, y in cursor.fetchall():
            series.setdefault(label, []).append((step, y / figure.scale))
    return dict(sorted(series.items()))


def labels_of(runs: Sequence[TrainingRun], key: str) -> list[set[str]]:
    """The labels of each run's object `key`, as its first and its latest steps have them."""
    return [
        {
            label
            for order in ("step", "-step")
            for values in RunMetric.objects.filter(run=run)
            .order_by(order)
            .values_list(f"values__{key}", flat=True)[:STEPS_WITH_ALL_LABELS]
            for label in values or {}
        }
        for run in runs
    ]


def _version(run: TrainingRun, since: int) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT xmin::text FROM training_runmetric WHERE run_id = %s AND step < %s ORDER BY step DESC LIMIT 1",
            [run.pk, since],
        )
        row: tuple[Any, ...] | None = cursor.fetchone()
    return row[0] if row else ""


# null is what a step has that was skipped, and is no point.
NUMBERS = """
    SELECT '' AS label, step, (values ->> %(key)s)::float8 AS y FROM training_runmetric
    WHERE run_id = %(run)s AND step BETWEEN %(since)s AND %(last)s AND jsonb_typeof(values -> %(key)s) = 'number'
"""
NUMBERS_BEFORE = """
    SELECT '', step, (values ->> %(key)s)::float8 FROM training_runmetric
    WHERE run_id = %(run)s AND step < %(since)s AND jsonb_typeof(values -> %(key)s) = 'number'
    ORDER BY step DESC LIMIT %(before)s
"""
OBJECTS = """
    SELECT each.key AS label, step, each.value::float8 AS y
    FROM training_runmetric, jsonb_each_text(values -> %(key)s) each
    WHERE run_id = %(run)s AND step BETWEEN %(since)s AND %(last)s
      AND jsonb_typeof(values -> %(key)s) = 'object' AND each.value IS NOT NULL
"""
OBJECTS_BEFORE = """
    SELECT found.label, earlier.* FROM (SELECT DISTINCT label FROM told) found, LATERAL (
        SELECT step, (values -> %(key)s ->> label)::float8 FROM training_runmetric
        WHERE run_id = %(run)s AND step < %(since)s AND jsonb_typeof(values -> %(key)s -> label) = 'number'
        ORDER BY step DESC LIMIT %(before)s
    ) earlier
"""
# The mean of 20 is put together from four sums of 5, which is a third of the work. A difference of running totals would
# be less still, but one spike would leave its rounding in every mean after it.
MEAN = """
    SELECT label, step, (
        five + coalesce(lag(five, 5) OVER past, 0) + coalesce(lag(five, 10) OVER past, 0)
             + coalesce(lag(five, 15) OVER past, 0)
    ) / least(20, row_number() OVER past) AS y
    FROM (
        SELECT label, step, sum(y) OVER (PARTITION BY label ORDER BY step ROWS BETWEEN 4 PRECEDING AND CURRENT ROW) AS five
        FROM {told}
    ) fives WINDOW past AS (PARTITION BY label ORDER BY step)
"""
# Arrays are compared number by number, so that the lowest [y, step] is the first of the lowest points. The newest
# bucket has its last point as well: the figure of now.
BUCKETED = """
    SELECT label, min(ARRAY[y, step]) AS low, max(ARRAY[y, -step]) AS high, max(ARRAY[step, y]) AS latest,
           step / %(width)s AS bucket
    FROM {shown} shown WHERE step >= %(since)s GROUP BY label, step / %(width)s
"""
POINTS = """
    SELECT DISTINCT label, point[2]::bigint AS step, point[1] AS y FROM bucketed, LATERAL (VALUES
        (low), (ARRAY[high[1], -high[2]]),
        (CASE WHEN bucket = %(newest)s / %(width)s THEN ARRAY[latest[2], latest[1]] END)
    ) each (point) WHERE point IS NOT NULL ORDER BY label, step
"""
WITH_BEFORE = "(SELECT * FROM told UNION ALL ({before})) told"


def _query(figure: Figure, since: int) -> str:
    """Only these texts are put together, never anything that was asked. Told apart first, so that no sort carries whole rows."""
    told, before = (OBJECTS, OBJECTS_BEFORE) if figure.by_label else (NUMBERS, NUMBERS_BEFORE)
    with_before = WITH_BEFORE.format(before=before) if since else "told"
    shown = f"({MEAN.format(told=with_before)})" if figure.smooth else "told"
    return f"WITH told AS MATERIALIZED ({told}), bucketed AS ({BUCKETED.format(shown=shown)}) {POINTS}"
