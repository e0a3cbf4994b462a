"""A workspace of any size for the rating benchmark, written in SQL: samples, campaigns, and judgments of the last 30 days, of
which as many as a campaign asks for unless somebody chooses otherwise are of gold items, and some thousands of probes."""

from typing import Any

from django.db import connection, transaction

from accounts.api import create_token
from accounts.models import Role, Scope, User
from curation import tallies
from curation.campaigns import set_raters
from curation.guidelines import first_revision
from curation.models import Campaign, CampaignKind, CampaignState, Question
from curation.questions import first_questions
from curation.rubrics import GUIDELINES, default_questions
from generation.models import GenerationBatch, ModelOrigin, ModelVersion, Prompt, PromptSet
from jobs.models import Job, JobState

PROMPTS = 1000
BUCKETS = ("action", "animals", "composition", "emotion", "scene")
OVERLAP = 3
# Gold that all raters have answered is a tenth of what they judged, as a campaign has it by itself; so much waits for them.
GOLD_PERCENT, FRESH_GOLD = 10, 200
# One judgment in so many was asked for again, up to so many.
PROBE_OF, MOST_PROBES = 100, 5000
# Raters at random are right far more often than that: the benchmark measures what the proof costs, and pauses nobody.
PAUSE_WINDOW, PAUSE_PERCENT = 20, 50
TABLES = (
    "generation_sample",
    "curation_item",
    "curation_itemsample",
    "curation_golditem",
    "curation_probe",
    "curation_assignment",
    "curation_judgment",
    "curation_verdict",
)


def make_people(count: int) -> tuple[User, list[User]]:
    """(a curator, so many raters), made at the first call and found again at later ones."""
    curator = _person("curator@bench.example", [Role.CURATOR])
    return curator, [_person(f"rater-{number}@bench.example", [Role.RATER]) for number in range(count)]


def make_tokens(people: list[User]) -> list[str]:
    """An API token for each."""
    return [create_token(person, scopes=[Scope.RATE], name="benchmark") for person in people]


def make_campaign(slug: str, *, items: int, judgments: int, by: User, raters: list[User]) -> Campaign:
    """An open campaign of that many items, of which the first `judgments` / 3 have their three judgments already. Gold and probes
    come on top of both.

    Each item has a sample of its own; their files do not exist, since nobody looks. Found again where it was made before.
    """
    if found := Campaign.objects.filter(slug=slug).first():
        return found
    with transaction.atomic():
        campaign = Campaign.objects.create(
            slug=slug,
            name=f"{items:,} items",
            kind=CampaignKind.ALIGNMENT,
            state=CampaignState.OPEN,
            overlap=OVERLAP,
            pause_window=PAUSE_WINDOW,
            pause_percent=PAUSE_PERCENT,
            guidelines=GUIDELINES[CampaignKind.ALIGNMENT],
            created_by=by,
        )
        for position, spec in enumerate(default_questions(CampaignKind.ALIGNMENT)):
            Question.objects.create(
                campaign=campaign, position=position, name=spec["name"], text=spec["text"], choices=spec["choices"]
            )
        first_revision(campaign)
        first_questions(campaign)
        set_raters(campaign, raters, by=by)
        judged = min(items, judgments // OVERLAP)
        answered = judged * OVERLAP * GOLD_PERCENT // 100 // len(raters)
        gold = answered + FRESH_GOLD
        batch = make_batch(slug, items + gold, by)
        with connection.cursor() as cursor:
            # Rows are made consistent by construction: keys and guards would be looked at row by row.
            cursor.execute("SET LOCAL session_replication_role = replica")
            for table, statement in zip(TABLES, STATEMENTS, strict=True):
                cursor.execute(
                    statement,
                    {
                        "campaign": campaign.pk,
                        "batch": batch.pk,
                        "prompts": PROMPTS,
                        "items": items,
                        "judged": judged,
                        "gold": gold,
                        "answered": answered,
                        "probes": min(judged * OVERLAP // PROBE_OF, judged, MOST_PROBES),
                        "by": by.pk,
                        "overlap": OVERLAP,
                        "question": campaign.questions.get().name,
                        "raters": [rater.pk for rater in raters],
                        "guidelines": campaign.revisions.get().pk,
                        "questions": campaign.question_revisions.get().pk,
                    },
                )
                # Without it the next statement is planned for the few rows that were there before.
                cursor.execute(f"ANALYZE {table}")
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"VACUUM ANALYZE {table}")
    tallies.fill(campaign)
    with connection.cursor() as cursor:
        # As the database does by itself within a minute.
        cursor.execute("ANALYZE curation_tally")
    return campaign


# By position: the items, behind them gold, of which all raters have answered the first, and the probes.
STATEMENTS = [
    """
    INSERT INTO generation_sample (batch_id, prompt_id, index, seed, image, thumbnail, width, height, code_version)
    SELECT %(batch)s, p.id, n / %(prompts)s, n, md5(n::text) || md5(n::text), md5(n::text) || md5(n::text), 512, 512, ''
    FROM generate_series(0, %(items)s + %(gold)s - 1) n
    JOIN generation_prompt p ON p.position = n %% %(prompts)s
     AND p.prompt_set_id = (SELECT prompt_set_id FROM generation_generationbatch WHERE id = %(batch)s)
    ORDER BY n
    """,
    """
    INSERT INTO curation_item (campaign_id, position, prompt_id, bucket, judged, is_open, is_gold)
    SELECT %(campaign)s, place, s.prompt_id, p.bucket, CASE WHEN place < %(judged)s THEN %(overlap)s ELSE 0 END,
           place >= %(judged)s AND place < %(items)s, place >= %(items)s
    FROM generate_series(0, %(items)s + %(gold)s + %(probes)s - 1) place
    JOIN generation_sample s ON s.batch_id = %(batch)s
     AND s.seed = CASE WHEN place < %(items)s + %(gold)s THEN place ELSE place - %(items)s - %(gold)s END
    JOIN generation_prompt p ON p.id = s.prompt_id ORDER BY place
    """,
    """
    INSERT INTO curation_itemsample (item_id, slot, sample_id)
    SELECT i.id, 0, s.id FROM curation_item i
    JOIN generation_sample s ON s.batch_id = %(batch)s
     AND s.seed = CASE WHEN i.position < %(items)s + %(gold)s THEN i.position ELSE i.position - %(items)s - %(gold)s END
    WHERE i.campaign_id = %(campaign)s
    """,
    """
    INSERT INTO curation_golditem (item_id, answers, created_by_id, created_at)
    SELECT id, jsonb_build_object(%(question)s::text, 'pass'), %(by)s, now() - interval '31 days'
    FROM curation_item
    WHERE campaign_id = %(campaign)s AND position BETWEEN %(items)s AND %(items)s + %(gold)s - 1 ORDER BY position
    """,
    # Each asks whoever came first.
    """
    INSERT INTO curation_probe (item_id, of_id, rater_id, created_at)
    SELECT probe.id, of.id, (%(raters)s::bigint[])[1 + of.position %% cardinality(%(raters)s::bigint[])], now()
    FROM curation_item probe JOIN curation_item of
      ON of.campaign_id = probe.campaign_id AND of.position = probe.position - %(items)s - %(gold)s
    WHERE probe.campaign_id = %(campaign)s AND probe.position >= %(items)s + %(gold)s ORDER BY probe.position
    """,
    # Raters take turns, as those do who lease in the campaign's order.
    """
    INSERT INTO curation_assignment (item_id, rater_id, state, "order", leased_at, expires_at, guideline_revision_id,
                                     question_revision_id)
    SELECT item_id, rater_id, 'judged', '[0]', at, at + interval '30 min', %(guidelines)s, %(questions)s
    FROM (
        SELECT i.id AS item_id, (%(raters)s::bigint[])[1 + (i.position + turn) %% cardinality(%(raters)s::bigint[])] AS rater_id,
               now() - interval '30 days' * (1 - i.position::float8 / %(judged)s) AS at
        FROM curation_item i, generate_series(0, %(overlap)s - 1) turn
        WHERE i.campaign_id = %(campaign)s AND i.position < %(judged)s
        UNION ALL
        SELECT i.id, rater_id, now() - interval '30 days' * (1 - (i.position - %(items)s)::float8 / %(answered)s)
        FROM curation_item i, unnest(%(raters)s::bigint[]) rater_id
        WHERE i.campaign_id = %(campaign)s AND i.position BETWEEN %(items)s AND %(items)s + %(answered)s - 1
        UNION ALL
        SELECT p.item_id, p.rater_id, now() - interval '1 day' * (1 - (i.position - %(items)s - %(gold)s)::float8 / %(probes)s)
        FROM curation_item i JOIN curation_probe p ON p.item_id = i.id WHERE i.campaign_id = %(campaign)s
    ) had
    """,
    """
    INSERT INTO curation_judgment (id, assignment_id, item_id, rater_id, action, answers, details, reason, "order",
                                   shown_at, decided_at, received_at, late, guideline_revision_id, question_revision_id)
    SELECT gen_random_uuid(), a.id, a.item_id, a.rater_id, 'answer',
           jsonb_build_object(%(question)s::text, CASE WHEN random() < 0.8 THEN 'pass' ELSE 'fail' END), '{}', '', '[0]',
           a.leased_at, a.leased_at + random() * interval '6 s', a.leased_at + interval '10 s', false,
           a.guideline_revision_id, a.question_revision_id
    FROM curation_assignment a JOIN curation_item i ON i.id = a.item_id WHERE i.campaign_id = %(campaign)s
    """,
    """
    INSERT INTO curation_verdict (item_id, rule, outcome, by_rule, tallies, judgments)
    SELECT item_id, 'majority', says, says,
           jsonb_build_object(%(question)s::text, jsonb_strip_nulls(jsonb_build_object(
               'fail', nullif(n - passes, 0), 'pass', nullif(passes, 0)))), n
    FROM (SELECT j.item_id, count(*) AS n, count(*) FILTER (WHERE j.answers ->> %(question)s::text = 'pass') AS passes
          FROM curation_judgment j JOIN curation_item i ON i.id = j.item_id
          WHERE i.campaign_id = %(campaign)s AND NOT i.is_gold
          GROUP BY j.item_id) judged,
         LATERAL (SELECT CASE WHEN 2 * passes > n THEN 'accepted' ELSE 'rejected' END AS says) rule
    """,
]


def violations() -> dict[str, int]:
    """What must never be: items with more judgments in time than wanted, raters who judged an item twice, counts that are wrong.
    Gold and probes have no places and no counts of their own."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH standing AS (
                SELECT j.item_id, j.rater_id, j.late FROM curation_judgment j WHERE j.action = 'answer'
                AND NOT EXISTS (SELECT 1 FROM curation_judgment later WHERE later.supersedes_id = j.id)),
            counted AS (
                SELECT i.id, i.judged, i.is_gold, c.overlap, count(s.item_id) AS n, count(s.item_id) FILTER (WHERE NOT s.late) AS in_time,
                       count(DISTINCT s.rater_id) AS people
                FROM curation_item i JOIN curation_campaign c ON c.id = i.campaign_id
                LEFT JOIN standing s ON s.item_id = i.id GROUP BY i.id, c.overlap)
            SELECT count(*) FILTER (WHERE in_time > overlap AND NOT is_gold), count(*) FILTER (WHERE people < n),
                   count(*) FILTER (WHERE judged <> CASE WHEN is_gold THEN 0 ELSE n END) FROM counted
            """
        )
        return dict(zip(("over_overlap", "judged_twice", "miscounted"), cursor.fetchone(), strict=True))


def _person(email: str, roles: list[str]) -> User:
    return User.objects.filter(email=email).first() or User.objects.create_user(email, roles=roles)


def make_batch(slug: str, items: int, by: User) -> GenerationBatch:
    """A finished batch with its model, prompts and job; it has no samples yet."""
    prompt_set = PromptSet.objects.create(
        slug=slug, name=slug, content_hash=f"{items:064x}", prompt_count=PROMPTS, created_by=by
    )
    Prompt.objects.bulk_create(
        Prompt(prompt_set=prompt_set, position=n, text=f"a sticker of thing {n}", bucket=BUCKETS[n % len(BUCKETS)])
        for n in range(PROMPTS)
    )
    model: Any = ModelVersion.objects.first() or ModelVersion.objects.create(
        number=1,
        name="none",
        origin=ModelOrigin.IMPORTED,
        content_hash="0" * 64,
        manifest={},
        image_size=512,
        created_by=by,
    )
    job = Job.objects.create(
        kind="generation.draw_batch", queue="generate", state=JobState.SUCCEEDED, finished_at="2026-01-01T00:00:00Z"
    )
    return GenerationBatch.objects.create(
        name=slug,
        model_version=model,
        prompt_set=prompt_set,
        images_per_prompt=-(-items // PROMPTS),
        width=512,
        height=512,
        sample_count=items,
        job=job,
        created_by=by,
    )
