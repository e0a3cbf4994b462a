"""The figures of campaigns: how far, how fast, how much raters agree, and who did what. Each is one statement, however many rows."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Count, F, Q, Sum
from django.db.models.functions import Least

from curation.models import Campaign, CampaignKind, CampaignState, Item, Judgment, Outcome, Question, Verdict
from curation.verdicts import MAJORITY, accepting

Z95 = 1.959963984540054
# A pause is no thinking: a decision that took longer than this does not count.
LONGEST_DECISION_SECONDS = 600
CURVE_POINTS = 120


@dataclass
class Progress:
    """How far a campaign is. `agreement` is the share of pairs of judgments of one item that say the same, per question."""

    items: int = 0
    done: int = 0
    judgments: int = 0
    wanted: int = 0
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
    """k of n, in percent, with Wilson's 95% interval (E. B. Wilson 1927)."""

    k: int
    n: int

    @property
    def percent(self) -> float:
        return 100 * self.k / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float] | None:
        if not self.n:
            return None
        share, z2 = self.k / self.n, Z95**2
        centre = (share + z2 / (2 * self.n)) / (1 + z2 / self.n)
        half = Z95 / (1 + z2 / self.n) * math.sqrt(share * (1 - share) / self.n + z2 / (4 * self.n**2))
        return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def progress_of(campaigns: Iterable[Campaign]) -> dict[int, Progress]:
    """Campaign id -> Progress, for all of them at once."""
    overlaps = {campaign.pk: campaign.overlap for campaign in campaigns}
    found = {pk: Progress() for pk in overlaps}
    rows = (
        Item.objects.to_decide()
        .filter(campaign__in=overlaps)
        .order_by()
        .values("campaign_id")
        .annotate(
            items=Count("pk"),
            done=Count("pk", filter=Q(is_open=False)),
            counted=Sum(Least("judged", F("campaign__overlap"))),
        )
    )
    for row in rows:
        progress = found[row["campaign_id"]]
        progress.items, progress.done, progress.judgments = row["items"], row["done"], row["counted"] or 0
        progress.wanted = row["items"] * overlaps[row["campaign_id"]]
    split = Verdict.objects.filter(item__campaign__in=overlaps, rule=MAJORITY, outcome=Outcome.SPLIT)
    for pk, count in split.order_by().values_list("item__campaign").annotate(count=Count("pk")):
        found[pk].split = count
    for pk, agreeing, pairs in _pairs(list(overlaps)):
        found[pk].agreeing, found[pk].pairs = int(agreeing), int(pairs)
    return found


def _pairs(campaigns: list[int]) -> list[tuple[int, int, int]]:
    """(campaign, agreeing pairs, pairs), from the tallies: c choices of one value make c (c - 1) / 2 agreeing pairs."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT i.campaign_id, sum(one.agreeing) / 2, sum(one.n * (one.n - 1)) / 2
            FROM curation_verdict v JOIN curation_item i ON i.id = v.item_id,
                 LATERAL jsonb_each(v.tallies) question,
                 LATERAL (SELECT coalesce(sum(value::int), 0) AS n, coalesce(sum(value::int * (value::int - 1)), 0) AS agreeing
                          FROM jsonb_each_text(question.value)) one
            WHERE v.rule = %s AND i.campaign_id = ANY(%s) AND v.judgments > 1
            GROUP BY i.campaign_id
            """,
            [MAJORITY, campaigns],
        )
        return list(cursor.fetchall())


def rater_rows(campaign: Campaign) -> list[dict[str, Any]]:
    """For each rater, past ones too: name, answers, skips, flags, median_seconds, late, left_share (comparisons), agreement
    (Share of the other judgments that say the same; single samples), last_at."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT j.rater_id,
                   count(*) FILTER (WHERE j.action = 'answer'), count(*) FILTER (WHERE j.action = 'skip'),
                   count(*) FILTER (WHERE j.action = 'flag'), count(*) FILTER (WHERE j.late),
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM j.decided_at - j.shown_at)) FILTER
                     (WHERE j.action = 'answer' AND j.decided_at - j.shown_at BETWEEN '0 s' AND %s * interval '1 s'),
                   max(j.received_at)
            FROM curation_judgment j JOIN curation_item i ON i.id = j.item_id
            WHERE i.campaign_id = %s
              AND NOT EXISTS (SELECT 1 FROM curation_judgment later WHERE later.supersedes_id = j.id)
            GROUP BY j.rater_id
            """,
            [LONGEST_DECISION_SECONDS, campaign.pk],
        )
        done = {row[0]: row[1:] for row in cursor.fetchall()}
    agreement = _agreement_by_rater(campaign)
    left = _left_by_rater(campaign) if campaign.kind == CampaignKind.COMPARE else {}
    rows = []
    for place in campaign.memberships.select_related("rater").order_by("rater__email"):
        answers, skips, flags, late, median, last = done.get(place.rater_id, (0, 0, 0, 0, None, None))
        if place.removed_at and not (answers or skips or flags):
            continue
        rows.append(
            {
                "rater": place.rater,
                "is_removed": place.removed_at is not None,
                "answers": answers,
                "skips": skips,
                "flags": flags,
                "late": late,
                "median_seconds": median,
                "agreement": agreement.get(place.rater_id),
                "left": left.get(place.rater_id),
                "last_at": last,
            }
        )
    return rows


def _agreement_by_rater(campaign: Campaign) -> dict[int, Share]:
    if campaign.kind == CampaignKind.COMPARE:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT j.rater_id, sum((tally.value -> (answer.value))::int - 1),
                   sum((SELECT sum(value::int) FROM jsonb_each_text(tally.value)) - 1)
            FROM curation_judgment j
            JOIN curation_item i ON i.id = j.item_id
            JOIN curation_verdict v ON v.item_id = i.id AND v.rule = %s AND v.judgments > 1,
                 LATERAL jsonb_each_text(j.answers) answer
            JOIN LATERAL jsonb_each(v.tallies) tally ON tally.key = answer.key
            WHERE i.campaign_id = %s AND j.action = 'answer'
              AND NOT EXISTS (SELECT 1 FROM curation_judgment later WHERE later.supersedes_id = j.id)
            GROUP BY j.rater_id
            """,
            [MAJORITY, campaign.pk],
        )
        return {pk: Share(int(agreeing), int(others)) for pk, agreeing, others in cursor.fetchall() if others}


def _left_by_rater(campaign: Campaign) -> dict[int, Share]:
    """How often each rater chose the left side, of all times that they chose a side: far from half is a habit."""
    question = campaign.questions.first()
    counts: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    standing = Judgment.objects.standing().filter(item__campaign=campaign).order_by()
    for rater, answers in standing.values_list("rater_id", "answers"):
        side = answers.get(question.name) if question else None
        if side in ("left", "right"):
            counts[rater][0] += side == "left"
            counts[rater][1] += 1
    return {rater: Share(k, n) for rater, (k, n) in counts.items()}


def pass_rates(campaign: Campaign, questions: Iterable[Question]) -> tuple[list[Question], list[dict[str, Any]]]:
    """The questions that can be passed, and for each bucket a row {"bucket", "shares": a Share for each question}; then all."""
    asked = [question for question in questions if accepting(question)]
    sums: defaultdict[str, list[list[int]]] = defaultdict(lambda: [[0, 0] for _ in asked])
    tallies = Verdict.objects.filter(item__campaign=campaign, rule=MAJORITY).order_by()
    for bucket, tally in tallies.values_list("item__bucket", "tallies").iterator():
        for place, question in enumerate(asked):
            accepts = accepting(question)
            for value, count in tally.get(question.name, {}).items():
                for name in (bucket, None):
                    cell = sums[name if name is not None else "\0all"][place]
                    cell[0] += count if value in accepts else 0
                    cell[1] += count
    total = sums.pop("\0all", [[0, 0] for _ in asked])
    rows = [
        {"bucket": bucket or "no bucket", "shares": [Share(*cell) for cell in sums[bucket]]} for bucket in sorted(sums)
    ]
    return asked, [*rows, {"bucket": "all", "shares": [Share(*cell) for cell in total]}]


def outcomes_of(campaign: Campaign) -> dict[str, int]:
    """Outcome -> number of items; items that nobody has judged are pending."""
    rows = Verdict.objects.filter(item__campaign=campaign, rule=MAJORITY).order_by()
    counts = dict(rows.values_list("outcome").annotate(count=Count("pk")))
    counts[Outcome.PENDING] = campaign.items.to_decide().count() - sum(
        count for outcome, count in counts.items() if outcome != Outcome.PENDING
    )
    return counts


def judgments_curve(campaign: Campaign) -> dict[str, Any]:
    """Judgments since the first, as `curves.js` reads them: x in minutes or hours, at most 120 points."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT extract(epoch FROM bin_end)::float8, n FROM (
                SELECT max(j.received_at) - min(min(j.received_at)) OVER () AS bin_end,
                       sum(count(*)) OVER (ORDER BY min(j.received_at)) AS n
                FROM (SELECT j.received_at, ntile(%s) OVER (ORDER BY j.received_at) AS tile
                      FROM curation_judgment j JOIN curation_item i ON i.id = j.item_id
                      WHERE i.campaign_id = %s AND NOT i.is_gold AND j.action = 'answer') j
                GROUP BY j.tile) bins ORDER BY 1
            """,
            [CURVE_POINTS, campaign.pk],
        )
        rows = [(float(seconds), int(count)) for seconds, count in cursor.fetchall()]
    unit, size = ("Hours", 3600) if rows and rows[-1][0] > 3 * 3600 else ("Minutes", 60)
    points = [[0.0, 0], *([round(seconds / size, 3), count] for seconds, count in rows)] if rows else []
    return {
        "series": [{"label": "Judgments", "points": points}],
        "x_label": f"{unit} since the first judgment",
        "y_label": "Judgments",
        "done": campaign.state != CampaignState.OPEN,
    }


def recent_rate(campaign: Campaign) -> float:
    """Judgments a minute over the last ten minutes."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM curation_judgment j JOIN curation_item i ON i.id = j.item_id "
            "WHERE i.campaign_id = %s AND NOT i.is_gold AND j.action = 'answer' AND j.received_at > now() - interval '10 minutes'",
            [campaign.pk],
        )
        return float(cursor.fetchone()[0]) / 10
