"""Answers are counted by the revision of the guidelines under which they were given; those that are there already, too."""

from django.db import migrations

FILL = """
INSERT INTO curation_tally (campaign_id, rater_id, what, bucket, question, key, n, at, is_folded)
SELECT i.campaign_id, 0, 'revision', '', '', coalesce(r.number::text, ''), count(*), NULL, true
FROM curation_judgment j JOIN curation_item i ON i.id = j.item_id
LEFT JOIN curation_guidelinerevision r ON r.id = j.guideline_revision_id
LEFT JOIN curation_judgment later ON later.supersedes_id = j.id
WHERE later.id IS NULL AND j.action = 'answer' AND NOT i.is_gold GROUP BY 1, 6;
"""
CLEAR = "DELETE FROM curation_tally WHERE what = 'revision';"


class Migration(migrations.Migration):
    dependencies = [
        ("curation", "0023_exclusions"),
    ]

    operations = [
        migrations.RunSQL(FILL, CLEAR),
    ]
