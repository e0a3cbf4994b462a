"""A rater's answers are counted by the hour in which they came; those that are there already, too."""

from django.db import migrations

FILL = """
INSERT INTO curation_tally (campaign_id, rater_id, what, bucket, question, key, n, at, is_folded)
SELECT i.campaign_id, j.rater_id, 'hour', '', '', floor(extract(epoch FROM j.received_at) / 3600)::bigint::text, count(*), NULL, true
FROM curation_judgment j JOIN curation_item i ON i.id = j.item_id
LEFT JOIN curation_judgment later ON later.supersedes_id = j.id
WHERE later.id IS NULL AND j.action = 'answer' GROUP BY 1, 2, 6;
"""
CLEAR = "DELETE FROM curation_tally WHERE what = 'hour';"


class Migration(migrations.Migration):
    dependencies = [
        ("curation", "0016_probes"),
    ]

    operations = [
        migrations.RunSQL(FILL, CLEAR),
    ]
