"""CLIP scores of samples are kept by sample; those that evaluations measured before, too."""

from django.db import migrations

FILL = """
INSERT INTO curation_samplescore (name, sample_id, value)
SELECT DISTINCT ON (name, s.id) left('CLIP score, ' || (e.metrics -> 'clip' ->> 'model'), 120) AS name, s.id, each.value
FROM training_evaluation e, LATERAL jsonb_array_elements(e.metrics -> 'clip' -> 'pairs') pair,
     LATERAL (VALUES ((pair ->> 'baseline_sample')::bigint, (pair ->> 'baseline')::float8),
                     ((pair ->> 'candidate_sample')::bigint, (pair ->> 'candidate')::float8)) each (sample, value)
JOIN generation_sample s ON s.id = each.sample
ORDER BY name, s.id, e.id DESC
ON CONFLICT DO NOTHING;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("curation", "0026_scores"),
        ("training", "0008_evaluation_sets"),
    ]

    operations = [
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
