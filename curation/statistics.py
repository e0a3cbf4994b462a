"""The figures of campaigns: how far, how fast, how much raters agree, and who did what, all from what is counted beside the
rows (curation.tallies)."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection

from curation import tallies
from curation.models import Campaign, CampaignState, Outcome, TallyKind

Z95 = 1.959963984540054
CURVE_POINTS = 120
# A short campaign is drawn by its judgments: in whole minutes it would be a stair.
MOST_DRAWN_ONE_BY_ONE = 5000
# What says how far campaigns are, and what says what each rater did.
OF_PROGRESS = (TallyKind.OPEN, TallyKind.DONE, TallyKind.OUTCOME, TallyKind.PATTERN)
OF_RATERS = (
    TallyKind.ENDED,
    TallyKind.LATE,
    TallyKind.SAID,
    TallyKind.AGREED,
    TallyKind.COMPARED,
    TallyKind.SQUARES,
    TallyKind.PAGED,
    TallyKind.SEEN,
)


@dataclass
class Progress:
    """How far a campaign is: `judgments` that stand and count, `wanted` if every item that is open is decided by the next that it
    needs, and `at_most` so many; those `beyond` came to items that had all of theirs. `agreement` is the share of pairs of
    judgments of one item that say the same, per question."""

    items: int = 0
    done: int = 0
    judgments: int = 0
    beyond: int = 0
    wanted: int = 0
    at_most: int = 0
    split: int = 0
    pairs: int = 0
    agreeing: int = 0

    @property
    def percent(self) -> int:
        return 100 * self.judgments // self.wanted if self.wanted else 0

    @property
    def agreement(self) -> float | None:
        """In percent; None while no item has two judgments."""
        return 100 * self.agreeing / self.pairs if self.pairs else None


@dataclass(frozen=True)
class Share:
    """k of n, in percent, with Wilson's 95% interval (E. B. Wilson 1927); of n that are worth fewer independent ones, `worth`."""

    k: int
    n: int
    worth: float | None = None

    @property
    def percent(self) -> float:
        return 100 * self.k / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float] | None:
        if not self.n:
            return None
        share, n, z2 = self.k / self.n, self.worth or self.n, Z95**2
        centre = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
        return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def agreement_of(agreed: int, compared: int, squares: int) -> Share:
    """How many of so many answers of others say what a rater says, `squares` being the sum over items of the squares of how many
    of them are to the item.

    The others' answers to one item are about the same picture: where a rater errs, all of them differ at once. They are taken to
    hang together entirely, which makes n of them worth n² / squares (Kish 1965, "Survey Sampling"), the number of items where
    all have as many. So the interval is never too narrow, and somewhat too wide where the others differ among themselves.
    """
    return Share(agreed, compared, compared**2 / squares if squares else None)


def progress_of(campaigns: Iterable[Campaign]) -> dict[int, Progress]:
    """Campaign id -> Progress, for all of them at once."""
    by_id = {campaign.pk: campaign for campaign in campaigns}
    found = {pk: Progress() for pk in by_id}
    for name, (n, _) in tallies.read(by_id, *OF_PROGRESS).items():
        progress = found[name.campaign_id]
        if name.what == TallyKind.PATTERN:
            counts = list(json.loads(name.key).values())
            progress.pairs += n * math.comb(sum(counts), 2)
            progress.agreeing += n * sum(math.comb(count, 2) for count in counts)
        elif name.what == TallyKind.OUTCOME:
            progress.split += n * (name.key == Outcome.SPLIT)
        else:
            campaign, is_done = by_id[name.campaign_id], name.what == TallyKind.DONE
            judged = min(int(name.key), campaign.most)
            progress.items += n
            progress.done += n * is_done
            progress.judgments += n * judged
            progress.beyond += n * (int(name.key) - judged)
            progress.wanted += n * (judged if is_done else max(campaign.overlap, judged + 1))
            progress.at_most += n * (judged if is_done else campaign.most)
    return found


@dataclass
class _Work:
    """What one rater did, as far as counts tell."""

    ended: Counter[str] = field(default_factory=Counter)
    late: int = 0
    said: Counter[tuple[str, str]] = field(default_factory=Counter)
    agreed: int = 0
    compared: int = 0
    squares: int = 0
    paged: int = 0
    last_at: datetime | None = None


def rater_rows(campaign: Campaign) -> list[dict[str, Any]]:
    """For each rater, past ones too: place, rater, answers, paged (of these, in the grid), skips, flags, median_seconds (a page's time
    divided by how many are on it), late, left_share (comparisons), agreement (Share of the other judgments that say the same;
    single samples), last_at."""
    done, medians = _work_of(campaign), _median_seconds(campaign)
    question = campaign.questions.first()
    is_comparison = campaign.compares
    rows = []
    for place in campaign.memberships.select_related("rater").order_by("rater__email"):
        work = done[place.rater_id]
        answers, skips, flags = (work.ended[action] for action in ("answer", "skip", "flag"))
        if place.removed_at and not (answers or skips or flags):
            continue
        left, right = (work.said[question.name, side] if question else 0 for side in ("left", "right"))
        rows.append(
            {
                "place": place,
                "rater": place.rater,
                "is_removed": place.removed_at is not None,
                "answers": answers,
                "paged": work.paged,
                "skips": skips,
                "flags": flags,
                "late": work.late,
                "median_seconds": medians.get(place.rater_id),
                "agreement": agreement_of(work.agreed, work.compared, work.squares) if work.compared else None,
                # How often the left side, of all times that they chose a side: far from half is a habit.
                "left": Share(left, left + right) if is_comparison and left + right else None,
                "last_at": work.last_at,
            }
        )
    return rows


def _work_of(campaign: Campaign) -> defaultdict[int, _Work]:
    found: defaultdict[int, _Work] = defaultdict(_Work)
    for name, (n, at) in tallies.read([campaign.pk], *OF_RATERS).items():
        work = found[name.rater_id]
        if name.what == TallyKind.ENDED:
            work.ended[name.key] = n
        elif name.what == TallyKind.SAID:
            work.said[name.question, name.key] = n
        elif name.what == TallyKind.SEEN:
            work.last_at = at
        else:
            setattr(work, name.what, n)
    return found


def _median_seconds(campaign: Campaign) -> dict[int, float]:
    """Rater id -> `median_of` the seconds of their standing answers; worked out where the counts are, which are some dozens a
    rater."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH took AS (
                -- Sums of whole numbers as float8 are exact, and many times as fast as the numeric that Postgres makes of bigint.
                SELECT rater_id, key::float8 AS seconds, n::float8 AS n FROM curation_tally WHERE what = %s AND campaign_id = %s
            ), passed AS (
                -- Changes that no fold has added up yet are peers of the row that they change.
                SELECT rater_id, seconds, sum(n) OVER (PARTITION BY rater_id ORDER BY seconds) AS passed,
                       sum(n) OVER (PARTITION BY rater_id) AS total FROM took
            )
            SELECT rater_id, (min(seconds) FILTER (WHERE 2 * passed >= total) + min(seconds) FILTER (WHERE 2 * passed > total)) / 2
            FROM passed WHERE total > 0 GROUP BY rater_id
            """,
            [TallyKind.SECONDS, campaign.pk],
        )
        return dict(cursor.fetchall())


def median_of(counts: Counter[float]) -> float | None:
    """The middle of values that occur so often; between two middles their mean. None where there are none."""
    total, passed, lower = counts.total(), 0, None
    for value in sorted(counts):
        passed += counts[value]
        if lower is None and 2 * passed >= total:
            lower = value
        if lower is not None and 2 * passed > total:
            return (lower + value) / 2
    return None


def seconds_by_rater(campaign: Campaign) -> dict[int, Counter[float]]:
    """Rater id -> how many standing answers took how many seconds (rounded; longer than ten minutes is a pause and not here)."""
    found: defaultdict[int, Counter[float]] = defaultdict(Counter)
    for name, (n, _) in tallies.read([campaign.pk], TallyKind.SECONDS).items():
        found[name.rater_id][float(name.key)] = n
    return dict(found)


def outcomes_of(campaign: Campaign) -> dict[str, int]:
    """Outcome -> number of items; items that nobody has judged are pending."""
    items, counts = 0, Counter[str]()
    for name, (n, _) in tallies.read([campaign.pk], TallyKind.OPEN, TallyKind.DONE, TallyKind.OUTCOME).items():
        if name.what == TallyKind.OUTCOME:
            counts[name.key] += n
        else:
            items += n
    counts[Outcome.PENDING] += items - counts.total()
    return dict(counts)


class GuidedBy(NamedTuple):
    """How many standing answers to items that get a verdict were given under a revision; of None, it is not known."""

    revision: int | None
    answers: int


def answers_by_revision(campaign: Campaign, what: TallyKind = TallyKind.REVISION) -> list[GuidedBy]:
    """By the guidelines' revision, or by that of the questions (WORDING): the newest first, those without answers left out, and
    last what is not known."""
    found = tallies.read([campaign.pk], what)
    rows = [GuidedBy(int(name.key) if name.key else None, n) for name, (n, _) in found.items()]
    return sorted(rows, key=lambda row: -(row.revision or 0))


def judgments_curve(campaign: Campaign) -> dict[str, Any]:
    """Judgments since the first, as `curves.js` reads them: x in minutes or hours, at most 120 points. Those that stand and count,
    as in Progress: with those beyond, it ends at as many."""
    short = tallies.total([campaign.pk], TallyKind.SEEN) <= MOST_DRAWN_ONE_BY_ONE
    rows = _curve_of_judgments(campaign) if short else _curve_of_minutes(campaign)
    unit, size = ("Hours", 3600) if rows and rows[-1][0] > 3 * 3600 else ("Minutes", 60)
    # What came all at once needs a width to be seen.
    points = [[0.0, 0], *([round(max(seconds, 1) / size, 3), count] for seconds, count in rows)] if rows else []
    return {
        "series": [{"label": "Judgments", "points": points}],
        "x_label": f"{unit} since the first judgment",
        "y_label": "Judgments",
        "done": campaign.state != CampaignState.OPEN,
    }


def _curve_of_judgments(campaign: Campaign) -> list[tuple[float, int]]:
    """(seconds since the first judgment, judgments until then)."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT extract(epoch FROM bin_end)::float8, n FROM (
                SELECT max(j.received_at) - min(min(j.received_at)) OVER () AS bin_end,
                       sum(count(*)) OVER (ORDER BY j.tile) AS n
                FROM (SELECT j.received_at, ntile(%s) OVER (ORDER BY j.received_at) AS tile
                      FROM curation_judgment j JOIN curation_item i ON i.id = j.item_id
                      LEFT JOIN curation_judgment later ON later.supersedes_id = j.id
                      LEFT JOIN curation_assignment barred ON barred.id = j.assignment_id AND barred.excluded
                      WHERE i.campaign_id = %s AND NOT i.is_gold AND j.action = 'answer' AND later.id IS NULL AND barred.id IS NULL) j
                GROUP BY j.tile) bins ORDER BY 1
            """,
            [CURVE_POINTS, campaign.pk],
        )
        return [(float(seconds), int(count)) for seconds, count in cursor.fetchall()]


def _curve_of_minutes(campaign: Campaign) -> list[tuple[float, int]]:
    """The same from the counts by minute, at even distances, so that a pause is a level stretch: (seconds from the begin of the
    first minute, judgments until then)."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH given AS (
                SELECT key::bigint AS minute, n::float8 AS n FROM curation_tally WHERE what = %(what)s AND campaign_id = %(campaign)s
            ), span AS (
                -- Minutes have all as many digits: the first and the last are the ends of an index.
                SELECT min(key)::bigint AS first, 1 + max(key)::bigint - min(key)::bigint AS minutes,
                       least(%(points)s, 1 + max(key)::bigint - min(key)::bigint) AS points
                FROM curation_tally WHERE what = %(what)s AND campaign_id = %(campaign)s
            ), counted AS (
                SELECT (minute - first) * points / minutes AS place, sum(n) AS n FROM given, span GROUP BY 1
            )
            SELECT (60.0 * minutes * (1 + place) / points)::float8, sum(coalesce(n, 0)) OVER (ORDER BY place)
            FROM span CROSS JOIN generate_series(0, points - 1) place LEFT JOIN counted USING (place) ORDER BY place
            """,
            {"what": TallyKind.MINUTE, "campaign": campaign.pk, "points": CURVE_POINTS},
        )
        return [(float(seconds), int(count)) for seconds, count in cursor.fetchall()]


def recent_rate(campaign: Campaign) -> float:
    """Judgments a minute over the last ten minutes, or since the first if that is less (but not less than one)."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH now AS (SELECT extract(epoch FROM now())::float8 / 60 AS minutes)
            -- Minutes have all as many digits: both parts are read from one end of an index. Of the first that is counted all has
            -- passed, of the last a part.
            SELECT (SELECT coalesce(sum(n), 0)::float8 FROM curation_tally
                    WHERE what = %(what)s AND campaign_id = %(campaign)s AND key > (floor(minutes)::bigint - 10)::text),
                   greatest(1, minutes - greatest(floor(minutes) - 9, (
                       SELECT min(key)::bigint FROM curation_tally WHERE what = %(what)s AND campaign_id = %(campaign)s
                   )))
            FROM now
            """,
            {"what": TallyKind.MINUTE, "campaign": campaign.pk},
        )
        count, minutes = cursor.fetchone()
        return count / minutes if count else 0.0


def pace_of_day(campaign: Campaign) -> float:
    """Judgments an hour over the last 24 hours, or since the first if that is less (but not less than ten minutes)."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH now AS (SELECT floor(extract(epoch FROM now()) / 60)::bigint AS minute)
            -- Minutes have all as many digits: both parts are read from one end of an index.
            SELECT (SELECT coalesce(sum(n), 0)::bigint FROM curation_tally
                    WHERE what = %(what)s AND campaign_id = %(campaign)s AND key > (minute - 24 * 60)::text),
                   least(24, greatest(1 + minute - (
                       SELECT min(key)::bigint FROM curation_tally WHERE what = %(what)s AND campaign_id = %(campaign)s
                   ), 10) / 60.0)::float8
            FROM now
            """,
            {"what": TallyKind.MINUTE, "campaign": campaign.pk},
        )
        count, hours = cursor.fetchone()
        return count / hours if count else 0.0
