"""Raters are told once of each change of the guidelines. Who was handed items before has been told of none since the first."""

from django.db import migrations, models

FILL = """
UPDATE curation_campaignrater place SET guidelines_read = 1
WHERE EXISTS (
    SELECT 1 FROM curation_assignment a JOIN curation_item i ON i.id = a.item_id
    WHERE a.rater_id = place.rater_id AND i.campaign_id = place.campaign_id
);
"""


class Migration(migrations.Migration):
    dependencies = [("curation", "0020_guidelines_shown")]

    operations = [
        migrations.AddField(
            model_name="campaignrater",
            name="guidelines_read",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="The revision up to which the rater knows what changed; none before the first lease.",
                null=True,
            ),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
