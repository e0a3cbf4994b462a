"""What raters say of gold items, and of what they are asked again, is counted as it comes; what is there already, too."""

import django.db.models.deletion
from django.db import migrations, models

# What a judgment says, in comparisons with the sides by what they are.
MEANT = """CASE WHEN c.kind IN ('compare', 'sets') THEN (
                   SELECT coalesce(jsonb_object_agg(said.key, CASE WHEN said.value IN ('left', 'right') THEN
                       CASE WHEN (j."order" ->> CASE said.value WHEN 'left' THEN 0 ELSE -1 END)::int < jsonb_array_length(j."order") / 2
                       THEN 'baseline' ELSE 'candidate' END ELSE said.value END), '{}') FROM jsonb_each_text(j.answers) said)
               ELSE j.answers END"""
MEANT_BEFORE = MEANT.replace("j.", "before.")
ANSWERED = """FROM curation_golditem known
        JOIN curation_item i ON i.id = known.item_id AND i.is_gold
        JOIN curation_campaign c ON c.id = i.campaign_id
        JOIN curation_judgment j ON j.item_id = i.id AND j.action = 'answer' AND j.received_at >= known.created_at"""
GOLD = f"""
INSERT INTO curation_tally (campaign_id, rater_id, what, bucket, question, key, n, at, is_folded)
SELECT campaign_id, rater_id, each.what, '', '', '', each.n, NULL, true
FROM (
    SELECT campaign_id, rater_id, count(*) AS measured, count(*) FILTER (WHERE is_right) AS rights,
           sum(('x' || left(md5(id::text || is_right::text), 10))::bit(40)::bigint) AS trail
    FROM (
        SELECT i.campaign_id, j.rater_id, j.id,
               {MEANT} @> known.answers AS is_right
        {ANSWERED}
        LEFT JOIN curation_judgment later ON later.supersedes_id = j.id
        WHERE known.retired_at IS NULL AND later.id IS NULL
    ) answer GROUP BY 1, 2
) rater, LATERAL (VALUES ('measured', measured), ('right', rights), ('trail', trail)) each (what, n)
WHERE each.n <> 0;
"""
FIRST = f"""
INSERT INTO curation_tally (campaign_id, rater_id, what, bucket, question, key, n, at, is_folded)
SELECT campaign_id, rater_id, each.what, '', '', hour, each.n, NULL, true
FROM (
    SELECT campaign_id, rater_id, hour, count(*) AS n, count(*) FILTER (WHERE is_right) AS rights
    FROM (
        SELECT i.campaign_id, j.rater_id, floor(extract(epoch FROM j.received_at) / 3600)::bigint::text AS hour,
               {MEANT} @> known.answers AS is_right
        {ANSWERED}
        WHERE known.retired_at IS NULL AND j.supersedes_id IS NULL
    ) answer GROUP BY 1, 2, 3
) rater, LATERAL (VALUES ('first', rater.n), ('firstok', rights)) each (what, n)
WHERE each.n <> 0;
"""
PROBES = f"""
INSERT INTO curation_tally (campaign_id, rater_id, what, bucket, question, key, n, at, is_folded)
SELECT campaign_id, rater_id, each.what, '', '', '', each.n, NULL, true
FROM (
    SELECT campaign_id, rater_id, count(*) AS twice, count(*) FILTER (WHERE said = said_before) AS same, sum(lefts) AS lefts,
           sum(sided) AS sided, sum(sided * sided) AS squares
    FROM (
        SELECT i.campaign_id, p.rater_id, sides.*,
               {MEANT} AS said,
               {MEANT_BEFORE} AS said_before
        FROM curation_probe p
        JOIN curation_item i ON i.id = p.item_id AND i.is_gold
        JOIN curation_campaign c ON c.id = i.campaign_id
        JOIN curation_judgment j ON j.item_id = p.item_id AND j.rater_id = p.rater_id AND j.action = 'answer'
        JOIN curation_judgment before ON before.item_id = p.of_id AND before.rater_id = p.rater_id AND before.action = 'answer'
        LEFT JOIN curation_judgment later ON later.supersedes_id = j.id
        LEFT JOIN curation_judgment later_before ON later_before.supersedes_id = before.id,
        LATERAL (SELECT count(*) AS sided, count(*) FILTER (WHERE value = 'left') AS lefts
                 FROM (SELECT value FROM jsonb_each_text(j.answers) UNION ALL SELECT value FROM jsonb_each_text(before.answers)) both_times
                 WHERE c.kind IN ('compare', 'sets') AND value IN ('left', 'right')) sides
        WHERE later.id IS NULL AND later_before.id IS NULL
    ) pair GROUP BY 1, 2
) rater, LATERAL (VALUES ('twice', twice), ('same', same), ('left', lefts), ('sided', sided), ('sidedsq', squares)) each (what, n)
WHERE each.n <> 0;
"""
FILL = GOLD + FIRST + PROBES
CLEAR = "DELETE FROM curation_tally WHERE what IN ('measured', 'right', 'trail', 'first', 'firstok', 'twice', 'same', 'left', 'sided', 'sidedsq');"


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0034_minutes_of_what_stands'),
    ]

    operations = [
        migrations.CreateModel(
            name='GoldRecord',
            fields=[
                ('place', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='gold_record', serialize=False, to='curation.campaignrater')),
                ('length', models.PositiveSmallIntegerField(help_text='Answers of a stretch.')),
                ('since', models.DateTimeField(blank=True, help_text='`measured_since` of the place, as it was.', null=True)),
                ('until', models.DateTimeField(blank=True, help_text='When the last answer came that is in it.', null=True)),
                ('trail', models.BigIntegerField(default=0, help_text='The sum over all answers up to then, those before `since` too.')),
                ('answers', models.PositiveIntegerField(default=0)),
                ('rights', models.JSONField(default=list, help_text='Right answers of each stretch.')),
            ],
        ),
        migrations.RunSQL(FILL, CLEAR),
    ]
