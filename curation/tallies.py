"""Tallies: counts of items and judgments that are kept beside them, so that no page counts millions of rows.

The contract: whoever adds judgments, or changes a verdict, the state of an assignment, an item (`judged`, `is_open`,
`adjudicated`, its bucket), or what is known of it (GoldItem), does so inside `with kept(items)`, in a transaction that holds the
locks on these items; whoever adds items with judgments calls `fill` afterwards. A probe and the item that it shows again are
counted together, so that whoever adds a judgment of the one holds and names both. `manage.py verify` compares all counts with the rows, `manage.py recount` makes them anew.

What is of items leaves out what excluded raters said; what is of a rater says what they did, whether or not it counts.

What is counted stands in one statement, COUNTS, which says what the rows of some items add up to: `kept` takes it before and
after a change and writes down the difference, `fill` and `differences` take it for a whole campaign.
"""

# ruff: noqa: S608 (Statements are put together from this module's own constants.)

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import NamedTuple

from django.db import connection, transaction
from django.db.models import Sum

from accounts.rows import execute_prepared, fetch_prepared
from curation.models import Campaign, Tally, TallyKind
from curation.rightness import ACTIVE, MEASURES, PRINT, is_right, with_sides

# Any constant, known to nobody else who takes advisory locks in this database.
LOCK = 0x61_74_65_6C_02
# A pause is no thinking: a decision that took longer than this does not count.
LONGEST_DECISION_SECONDS = 600

Count = tuple[int, datetime | None]


class _Moment(NamedTuple):
    """What was read at once, and of what."""

    campaigns: frozenset[int]
    kinds: frozenset[str]
    counts: "dict[Key, Count]"


_moment: ContextVar[_Moment | None] = ContextVar("moment", default=None)


class Key(NamedTuple):
    """What is counted: everything of a Tally but the number."""

    campaign_id: int
    rater_id: int
    what: str
    bucket: str
    question: str
    key: str


COUNTS = """
WITH chosen AS MATERIALIZED (
    SELECT i.id, i.campaign_id, i.prompt_id, i.bucket, i.judged, i.is_open, i.is_gold, i.adjudicated,
           v.outcome, v.contested, v.tallies, c.kind IN ('compare', 'sets') AS compares
    FROM curation_item i JOIN curation_campaign c ON c.id = i.campaign_id LEFT JOIN curation_verdict v ON v.item_id = i.id
    WHERE {which}
), given AS MATERIALIZED (
    SELECT i.campaign_id, i.prompt_id, i.bucket, i.is_gold, i.compares, j.id, j.rater_id, j.item_id, j.action, j.answers, j."order",
           j.details, j.late, j.received_at, guidelines.number AS revision, questions.number AS wording,
           j.supersedes_id IS NULL AS is_first, later.id IS NULL AS stands, later.id IS NULL AND j.action = 'answer' AS says,
           barred.id IS NULL AS counts, j.page IS NOT NULL AS is_paged,
           extract(epoch FROM j.decided_at - j.shown_at) / coalesce(j.page_size, 1) AS seconds
    FROM chosen i JOIN curation_judgment j ON j.item_id = i.id
    LEFT JOIN curation_judgment later ON later.supersedes_id = j.id
    LEFT JOIN curation_assignment barred ON barred.id = j.assignment_id AND barred.excluded
    LEFT JOIN curation_guidelinerevision guidelines ON guidelines.id = j.guideline_revision_id
    LEFT JOIN curation_questionrevision questions ON questions.id = j.question_revision_id
), answered AS (
    SELECT given.*, answer.key AS question, answer.value FROM given, LATERAL jsonb_each_text(answers) answer WHERE says
), detailed AS (
    SELECT campaign_id, prompt_id, bucket, detail.key AS question, detail.value AS detail
    FROM given, LATERAL jsonb_each(details) detail
    WHERE says AND counts AND NOT is_gold
), known AS MATERIALIZED (
    -- Few items are gold or probes: by all their judgments it would take longer to find out which.
    SELECT g.item_id, g.answers, g.created_at FROM chosen i JOIN curation_golditem g ON g.item_id = i.id AND {active}
    WHERE i.is_gold
), on_gold AS (
    -- What a rater said of gold measures them, also while it does not count.
    SELECT j.campaign_id, j.rater_id, j.id, j.is_first, j.says, floor(extract(epoch FROM j.received_at) / 3600)::bigint::text AS hour,
           {is_right} AS is_right
    FROM known g JOIN given j ON j.item_id = g.item_id AND j.action = 'answer' AND {measures}
), gauged AS (
    SELECT campaign_id, rater_id, count(*) AS measured, count(*) FILTER (WHERE is_right) AS rights, sum({print}) AS trail
    FROM on_gold j WHERE says GROUP BY 1, 2
), begun AS (
    SELECT campaign_id, rater_id, hour, count(*) AS n, count(*) FILTER (WHERE is_right) AS rights
    FROM on_gold WHERE is_first GROUP BY 1, 2, 3
), probes AS MATERIALIZED (
    SELECT p.item_id, p.of_id, p.rater_id FROM chosen i JOIN curation_probe p ON p.item_id = i.id WHERE i.is_gold
), again AS (
    SELECT j.campaign_id, j.rater_id, count(*) AS twice, count(*) FILTER (WHERE {same}) AS same, sum(sides.lefts) AS lefts,
           sum(sides.sided) AS sided, sum(sides.sided * sides.sided) AS squares
    FROM probes p JOIN given j ON j.item_id = p.item_id AND j.rater_id = p.rater_id AND j.says
    JOIN given before ON before.item_id = p.of_id AND before.rater_id = p.rater_id AND before.says,
         LATERAL (SELECT count(*) AS sided, count(*) FILTER (WHERE value = 'left') AS lefts
                  FROM (SELECT value FROM jsonb_each_text(j.answers) UNION ALL SELECT value FROM jsonb_each_text(before.answers)) said
                  WHERE j.compares AND value IN ('left', 'right')) sides
    GROUP BY 1, 2
), compared AS (
    -- Answers to one item go together, whatever was asked of it: its square says how much of the whole hangs on one picture.
    SELECT campaign_id, rater_id, sum(agreed) AS agreed, sum(others) AS others, sum(others * others) AS squares FROM (
        SELECT a.campaign_id, a.rater_id, sum((i.tallies -> a.question ->> a.value)::int - 1) AS agreed,
               sum((SELECT sum(value::int) FROM jsonb_each_text(i.tallies -> a.question)) - 1) AS others
        FROM answered a JOIN chosen i ON i.id = a.item_id
        WHERE a.counts AND NOT a.compares AND i.tallies -> a.question IS NOT NULL
        GROUP BY a.campaign_id, a.rater_id, a.item_id) item
    GROUP BY 1, 2
), counts (campaign_id, rater_id, what, bucket, question, key, n, at) AS (
    -- Few branches, since each costs the planner time for every batch of judgments: what is counted by the same row is one of
    -- them, and `key` is null where the row does not count.
    SELECT campaign_id, 0::bigint, what, CASE WHEN what IN ('split', 'flagged') THEN '' ELSE bucket END, '', key, count(*),
           NULL::timestamptz
    FROM (
        SELECT i.campaign_id, i.bucket, CASE kind WHEN 'places' THEN CASE WHEN i.is_open THEN 'open' ELSE 'done' END
               WHEN 'outcome' THEN 'outcome' ELSE CASE WHEN i.contested THEN 'split' ELSE 'flagged' END END AS what,
               CASE kind WHEN 'places' THEN CASE WHEN NOT i.is_gold THEN i.judged::text END
               WHEN 'outcome' THEN i.outcome
               ELSE CASE WHEN i.adjudicated = '' AND NOT i.is_gold AND (i.contested OR i.id IN
                   (SELECT item_id FROM given WHERE stands AND action = 'flag')) THEN '' END END AS key
        FROM chosen i CROSS JOIN (VALUES ('places'), ('outcome'), ('curator')) kinds (kind)
    ) item WHERE key IS NOT NULL GROUP BY 1, 3, 4, 6
    UNION ALL
    SELECT i.campaign_id, 0, 'pattern', i.bucket, asked.key, asked.value::text, count(*), NULL
    FROM chosen i, LATERAL jsonb_each(i.tallies) asked
    WHERE asked.value <> '{{}}' GROUP BY 1, 4, 5, 6
    UNION ALL
    SELECT campaign_id, 0, 'reason', bucket, question, reason.value, count(*), NULL
    FROM detailed, LATERAL jsonb_array_elements_text(coalesce(detail -> 'reasons', '[]')) reason GROUP BY 1, 4, 5, 6
    UNION ALL
    -- Places count from 0; punctuation at its ends makes no other word.
    SELECT campaign_id, 0, 'word', '', '', lower(btrim(words[place.value::int + 1], '.,;:!?"''()“”‘’')), count(*), NULL
    FROM detailed JOIN generation_prompt p ON p.id = prompt_id,
         LATERAL regexp_split_to_array(btrim(coalesce(nullif(p.caption, ''), p.text), E' \t\r\n'), '\\s+') words,
         LATERAL jsonb_array_elements_text(coalesce(detail -> 'words', '[]')) place
    WHERE words[place.value::int + 1] IS NOT NULL GROUP BY 1, 6
    UNION ALL
    SELECT campaign_id, CASE WHEN what IN ('minute', 'revision', 'wording') THEN 0 ELSE rater_id END, what, '', '', key,
           count(*), CASE WHEN what = 'seen' THEN max(received_at) END
    FROM (
        SELECT g.campaign_id, g.rater_id, g.received_at, what, CASE what
               WHEN 'minute' THEN CASE WHEN g.says AND g.counts AND NOT g.is_gold THEN
                   floor(extract(epoch FROM g.received_at) / 60)::bigint::text END
               WHEN 'revision' THEN CASE WHEN g.says AND NOT g.is_gold THEN coalesce(g.revision::text, '') END
               WHEN 'wording' THEN CASE WHEN g.says AND NOT g.is_gold THEN coalesce(g.wording::text, '') END
               WHEN 'seen' THEN ''
               WHEN 'ended' THEN CASE WHEN g.stands THEN g.action END
               WHEN 'late' THEN CASE WHEN g.stands AND g.late THEN '' END
               WHEN 'hour' THEN CASE WHEN g.says THEN floor(extract(epoch FROM g.received_at) / 3600)::bigint::text END
               WHEN 'paged' THEN CASE WHEN g.says AND g.is_paged THEN '' END
               ELSE CASE WHEN g.says AND g.seconds BETWEEN 0 AND {longest} THEN
                   round(g.seconds, CASE WHEN g.seconds < 10 THEN 1 WHEN g.seconds < 100 THEN 0 ELSE -1 END)::text END
               END AS key
        FROM given g CROSS JOIN (VALUES ('minute'), ('revision'), ('wording'), ('seen'), ('ended'), ('late'), ('hour'),
                                        ('paged'), ('seconds')) kinds (what)
    ) judgment WHERE key IS NOT NULL GROUP BY 1, 2, 3, 6
    UNION ALL
    SELECT campaign_id, rater_id, 'said', '', question, value, count(*), NULL FROM answered GROUP BY 1, 2, 5, 6
    UNION ALL
    SELECT campaign_id, rater_id, what, '', '', '', n, NULL
    FROM compared, LATERAL (VALUES ('agreed', agreed), ('compared', others), ('squares', squares)) each (what, n) WHERE n <> 0
    UNION ALL
    SELECT campaign_id, rater_id, what, '', '', '', n, NULL
    FROM gauged, LATERAL (VALUES ('measured', measured), ('right', rights), ('trail', trail)) each (what, n) WHERE n <> 0
    UNION ALL
    SELECT campaign_id, rater_id, what, '', '', hour, each.n, NULL
    FROM begun, LATERAL (VALUES ('first', begun.n), ('firstok', rights)) each (what, n) WHERE each.n <> 0
    UNION ALL
    SELECT campaign_id, rater_id, what, '', '', '', n, NULL
    FROM again, LATERAL (VALUES ('twice', twice), ('same', same), ('left', lefts), ('sided', sided), ('sidedsq', squares)) each (what, n) WHERE n <> 0
    UNION ALL
    SELECT i.campaign_id, a.rater_id, 'waiting', '', '', '', count(*), NULL
    FROM chosen i JOIN curation_assignment a ON a.item_id = i.id
    WHERE i.is_open AND a.state IN ('judged', 'released') GROUP BY 1, 2
)
"""
PARTS = {
    "longest": LONGEST_DECISION_SECONDS,
    "active": ACTIVE,
    "measures": MEASURES,
    "is_right": is_right("j.compares"),
    "print": PRINT,
    "same": f"""CASE WHEN j.compares THEN {with_sides("j.answers", 'j."order"')} = {with_sides("before.answers", 'before."order"')}
                ELSE j.answers = before.answers END""",
}
OF_ITEMS = COUNTS.format(which="i.id = ANY(%s::bigint[])", **PARTS)
OF_CAMPAIGN = COUNTS.format(which="i.campaign_id = %s", **PARTS)
COLUMNS = "campaign_id, rater_id, what, bucket, question, key"
OF_THESE = f"{OF_ITEMS} SELECT {COLUMNS}, n::bigint, at FROM counts"
ADD = f"""
INSERT INTO curation_tally ({COLUMNS}, n, at, is_folded)
SELECT *, false FROM json_to_recordset(%s::json) v (campaign_id bigint, rater_id bigint, what text, bucket text, question text,
                                                    key text, n bigint, at timestamptz)
"""


@contextmanager
def kept(items: Collection[int]) -> Iterator[None]:
    """Bring the counts into line with what the block changes about these items, whose rows the caller has locked."""
    pks = sorted(items)
    before = _count(pks)
    yield
    after = _count(pks)
    changes = []
    for key in before.keys() | after.keys():
        (n, at), (n_before, at_before) = after.get(key, (0, None)), before.get(key, (0, None))
        if n != n_before or at != at_before:
            changes.append(dict(key._asdict(), n=n - n_before, at=at if at != at_before else None))
    if changes:
        execute_prepared(ADD, [json.dumps(changes, default=str)])


def fill(campaign: Campaign) -> None:
    """Count the whole campaign anew. While judgments may come in, call it with all its items locked."""
    with transaction.atomic(), connection.cursor() as cursor:
        # Sums that a fold is about to write would come on top.
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        Tally.objects.filter(campaign=campaign).delete()
        cursor.execute(
            f"{OF_CAMPAIGN} INSERT INTO curation_tally ({COLUMNS}, n, at, is_folded) SELECT {COLUMNS}, n, at, true FROM counts",
            [campaign.pk],
        )


def fold() -> int | None:
    """Add up what changes have added since the last time, and return how many rows that were; None where another is at it.

    One statement takes the rows away and puts their sums in their place, so that no reader sees neither or both.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return None
        cursor.execute(
            f"""
            WITH changed AS (
                SELECT DISTINCT {COLUMNS} FROM curation_tally WHERE NOT is_folded
            ), gone AS (
                DELETE FROM curation_tally t USING changed c
                WHERE t.what = c.what AND t.campaign_id = c.campaign_id AND t.rater_id = c.rater_id
                  AND t.bucket = c.bucket AND t.question = c.question AND t.key = c.key
                RETURNING t.*
            ), sums AS (
                INSERT INTO curation_tally ({COLUMNS}, n, at, is_folded)
                SELECT {COLUMNS}, sum(n), max(at), true FROM gone GROUP BY {COLUMNS} HAVING sum(n) <> 0
            )
            SELECT count(*) FROM gone
            """
        )
        return int(cursor.fetchone()[0])


@contextmanager
def at_one_moment(campaigns: Iterable[int], *what: TallyKind) -> Iterator[None]:
    """Within the block `read` answers about these kinds and campaigns from one statement, so that all figures of a page are of
    one moment; whoever changes counts within it does not see that."""
    wanted = list(campaigns)
    token = _moment.set(_Moment(frozenset(wanted), frozenset(what), read(wanted, *what)))
    try:
        yield
    finally:
        _moment.reset(token)


def read(campaigns: Iterable[int], *what: TallyKind, rater_id: int | None = None) -> dict[Key, Count]:
    """The counts of these kinds for these campaigns (ids), of one rater or of all: Key -> (number, time of the last)."""
    campaigns = list(campaigns)
    moment = _moment.get()
    if moment and rater_id is None and moment.campaigns.issuperset(campaigns) and moment.kinds.issuperset(what):
        return {key: count for key, count in moment.counts.items() if key.what in what and key.campaign_id in campaigns}
    one = "" if rater_id is None else "AND rater_id = %s"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {COLUMNS}, sum(n)::bigint, max(at) FROM curation_tally "
            f"WHERE what = ANY(%s) AND campaign_id = ANY(%s) {one} GROUP BY {COLUMNS} HAVING sum(n) <> 0",
            [[str(kind) for kind in what], campaigns, *([] if rater_id is None else [rater_id])],
        )
        return {Key(*row[:6]): (row[6], row[7]) for row in cursor.fetchall()}


def total(campaigns: Iterable[int], what: TallyKind, key: str | None = None, rater_id: int | None = None) -> int:
    """The sum of the counts of one kind, of one key or of all."""
    rows = Tally.objects.filter(what=what, campaign__in=list(campaigns))
    if key is not None:
        rows = rows.filter(key=key)
    if rater_id is not None:
        rows = rows.filter(rater_id=rater_id)
    return int(rows.aggregate(sum=Sum("n"))["sum"] or 0)


def differences(campaign: Campaign) -> list[Key]:
    """Which counts of the campaign are not what its rows add up to. One statement sees both at one moment."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            {OF_CAMPAIGN}, kept AS (
                SELECT {COLUMNS}, sum(n) AS n, max(at) AS at FROM curation_tally WHERE campaign_id = %s
                GROUP BY {COLUMNS} HAVING sum(n) <> 0)
            SELECT {COLUMNS} FROM counts FULL JOIN kept USING ({COLUMNS})
            WHERE counts.n IS DISTINCT FROM kept.n OR counts.at IS DISTINCT FROM kept.at ORDER BY {COLUMNS}
            """,
            [campaign.pk, campaign.pk],
        )
        return [Key(*row) for row in cursor.fetchall()]


def _count(items: list[int]) -> dict[Key, Count]:
    return {Key(*row[:6]): (row[6], row[7]) for row in fetch_prepared(OF_THESE, [items])}
