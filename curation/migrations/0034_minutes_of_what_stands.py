"""Minutes count the judgments that stand and count, as progress does, and no longer every answer that ever came."""

from django.db import migrations

CLEAR = "DELETE FROM curation_tally WHERE what = 'minute';"
COUNT = """
INSERT INTO curation_tally (campaign_id, rater_id, what, bucket, question, key, n, at, is_folded)
SELECT i.campaign_id, 0, 'minute', '', '', floor(extract(epoch FROM j.received_at) / 60)::bigint::text, count(*), NULL, true
FROM curation_judgment j JOIN curation_item i ON i.id = j.item_id
"""
FILL = f"""
{CLEAR}
{COUNT}
LEFT JOIN curation_judgment later ON later.supersedes_id = j.id
LEFT JOIN curation_assignment barred ON barred.id = j.assignment_id AND barred.excluded
WHERE later.id IS NULL AND barred.id IS NULL AND j.action = 'answer' AND NOT i.is_gold GROUP BY 1, 6;
"""  # noqa: S608 (This module's own words.)
BEFORE = f"{CLEAR} {COUNT} WHERE j.action = 'answer' AND NOT i.is_gold GROUP BY 1, 6;"  # noqa: S608


class Migration(migrations.Migration):
    dependencies = [
        ("curation", "0033_approvals"),
    ]

    operations = [
        migrations.RunSQL(FILL, BEFORE),
    ]
