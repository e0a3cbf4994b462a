"""Scores: what a model says of a campaign's items before people do, so that these go out in its order (curation.order).

A score comes from a file, a line for each image, or from what the database knows of samples (SampleScore). It is copied to the
item before the campaign opens. Who rates never sees it before their answer: it would tell them what to say.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from django.db import connection, transaction
from django.db.models import Count, Max, Min

from accounts.models import User
from curation.models import SCORE_ORDERS, Campaign, CampaignEvent, CampaignKind, CampaignState, SampleScore
from curation.order import FURTHEST, order_of, put_in_order
from jobs.models import Job

MOST_LINES = 200_000
MOST_BYTES = 32 * 2**20
MAX_ID = 2**63 - 1
IMAGE = re.compile(r"[0-9a-f]{64}")
# What has one sample an item, and so one score.
KINDS = (CampaignKind.ALIGNMENT, CampaignKind.STYLE)


class ScoresRefused(ValueError):
    """Scores that cannot be taken; the message is for a person."""


class Line(NamedTuple):
    """One image and its score: by the sample's number, or by the SHA-256 of its file, the other being 0 or empty."""

    sample: int
    image: str
    score: float


class Scored(NamedTuple):
    """What became of scores: items that have one, items in all, lines that name no image of the campaign, and the job that puts
    the items in order where that takes one."""

    items: int
    of: int
    unknown: int
    job: Job | None


class Spread(NamedTuple):
    """The scores of a campaign's items."""

    items: int
    without: int
    lowest: float | None
    highest: float | None


def read_scores(data: bytes) -> list[Line]:
    """The lines of a CSV file of image and score, with or without a line of headings. Raises ScoresRefused, with the number of
    the line that is wrong."""
    if len(data) > MOST_BYTES:
        raise ScoresRefused(f"The file has more than {MOST_BYTES // 2**20} MB: leave out all but images and scores.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ScoresRefused("The file is not UTF-8 text.") from fault
    lines = list(_read_lines(text))
    if not lines:
        raise ScoresRefused("The file has no scores. A line names an image and its score, with a comma between them.")
    if len(lines) > MOST_LINES:
        raise ScoresRefused(f"The file has {len(lines):,} scores; at most {MOST_LINES:,} are taken.")
    return lines


def import_scores(campaign: Campaign, lines: Sequence[Line], *, name: str, by: User) -> Scored:
    """Take the scores of a file in the place of those before. Raises ScoresRefused, and then nothing has changed."""
    with transaction.atomic():
        _hold(campaign)
        found = _find_items(campaign, lines)
        scores: dict[int, float] = {}
        for item, score, _ in found:
            if scores.setdefault(item, score) != score:
                raise ScoresRefused("The file gives an image two different scores. Name each image once.")
        unknown = len(lines) - len({line for _, _, line in found})
        return _take(campaign, scores, unknown, name, by)


def copy_scores(campaign: Campaign, name: str, *, by: User) -> Scored:
    """Take what the database knows of the campaign's samples by this measure, in the place of the scores before. Raises
    ScoresRefused, and then nothing has changed."""
    with transaction.atomic():
        _hold(campaign)
        items = campaign.items.filter(item_samples__sample__scores__name=name)
        scores = dict(items.order_by().values_list("pk", "item_samples__sample__scores__value"))
        return _take(campaign, scores, 0, name, by)


def known_measures(campaign: Campaign) -> list[tuple[str, int]]:
    """(name, how many of the campaign's items have a score of it), those of the most items first."""
    rows = SampleScore.objects.filter(sample__item_samples__item__campaign=campaign).order_by().values_list("name")
    return sorted(
        rows.annotate(items=Count("sample__item_samples__item", distinct=True)), key=lambda row: (-row[1], row)
    )


def spread_of(campaign: Campaign) -> Spread:
    """How many of the campaign's items have a score, and the lowest and highest."""
    found = campaign.items.to_decide().aggregate(
        all=Count("pk"), of=Count("score"), low=Min("score"), high=Max("score")
    )
    return Spread(found["of"], found["all"] - found["of"], found["low"], found["high"])


def why_no_scores(campaign: Campaign) -> str:
    """Why this campaign takes no scores now, as a sentence; empty where it does."""
    if campaign.kind not in KINDS:
        return "Scores are of single stickers: campaigns that compare stickers or pick among them take none."
    if campaign.state != CampaignState.DRAFT:
        return "This campaign was opened already. Scores are taken before that, so that all raters get the same order."
    return ""


def _read_lines(text: str) -> Iterator[Line]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            line = _read_line([cell.strip() for cell in cells], reader.line_num)
            if line is not None:
                yield line
    except csv.Error as fault:
        raise ScoresRefused(f"Line {reader.line_num} is no proper CSV: look for an unclosed quotation mark.") from fault


def _read_line(cells: list[str], number: int) -> Line | None:
    if len(cells) != 2:
        raise ScoresRefused(
            f"Line {number} does not have two values: an image and its score, with a comma between them."
        )
    name, value = cells[0].lower(), cells[1]
    try:
        score = float(value)
    except ValueError:
        if number == 1:
            return None  # Headings.
        raise ScoresRefused(f"Line {number}: “{value[:40]}” is no number.") from None
    if not abs(score) <= FURTHEST:  # Nor what is no number.
        raise ScoresRefused(f"Line {number}: a score lies between -1e300 and 1e300; this one is “{value[:40]}”.")
    if IMAGE.fullmatch(name):
        return Line(0, name, score)
    if name.isascii() and name.isdecimal() and 0 < int(name[:20]) <= MAX_ID:
        return Line(int(name[:20]), "", score)
    raise ScoresRefused(f"Line {number}: “{cells[0][:40]}” is neither a sample’s number nor the SHA-256 of an image.")


def _hold(campaign: Campaign) -> None:
    """Lock the campaign, and refuse it where it takes no scores: opening it waits for us, or was quicker."""
    campaign.refresh_from_db(from_queryset=Campaign.objects.select_for_update(no_key=True))
    if refusal := why_no_scores(campaign):
        raise ScoresRefused(refusal)


def _find_items(campaign: Campaign, lines: Iterable[Line]) -> list[tuple[int, float, int]]:
    """(item, score, number of the line), several of one line where several items show the image."""
    samples, images, scores = zip(*lines, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH given AS MATERIALIZED (
                SELECT * FROM unnest(%s::bigint[], %s::text[], %s::float8[]) WITH ORDINALITY g (sample, image, score, line)
            ), named AS (
                SELECT sample, score, line FROM given WHERE image = ''
                UNION ALL
                SELECT s.id, g.score, g.line FROM given g JOIN generation_sample s ON s.image = g.image WHERE g.image <> ''
            )
            SELECT i.id, n.score, n.line FROM named n JOIN curation_itemsample e ON e.sample_id = n.sample
            JOIN curation_item i ON i.id = e.item_id WHERE i.campaign_id = %s
            """,
            [list(samples), list(images), list(scores), campaign.pk],
        )
        return list(cursor.fetchall())


def _take(campaign: Campaign, scores: dict[int, float], unknown: int, name: str, by: User) -> Scored:
    if not scores:
        raise ScoresRefused("None of these scores is of an image of this campaign.")
    # Nothing is leased before a campaign opens, so no other transaction holds these rows.
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE curation_item i SET score = f.score
            FROM curation_item o LEFT JOIN unnest(%s::bigint[], %s::float8[]) f (item, score) ON f.item = o.id
            WHERE o.id = i.id AND o.campaign_id = %s AND o.score IS DISTINCT FROM f.score
            """,
            [list(scores), list(scores.values()), campaign.pk],
        )
    campaign.score_name = name
    campaign.save(update_fields=["score_name"])
    detail = {"name": name, "items": len(scores), "unknown": unknown}
    CampaignEvent.objects.create(campaign=campaign, kind="scores", by=by, detail=detail)
    job = put_in_order(campaign, by=by) if order_of(campaign).kind in SCORE_ORDERS else None
    return Scored(len(scores), campaign.items.count(), unknown, job)


def keep_scores(name: str, scores: Mapping[int, float]) -> None:
    """Keep what a model said of samples (id -> score) by this measure, in the place of what it said before."""
    SampleScore.objects.bulk_create(
        [SampleScore(name=name, sample_id=sample, value=value) for sample, value in sorted(scores.items())],
        batch_size=2000,
        update_conflicts=True,
        unique_fields=["name", "sample"],
        update_fields=["value"],
    )
