"""Examples belong to a revision of the guidelines, with the right answers and why, and are only ever added. Those that a campaign
had are the newest revision's."""

import django.db.models.deletion
from django.db import migrations, models

GUARD = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON curation_guidelineexample
    FOR EACH ROW EXECUTE FUNCTION curation_refuse();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON curation_guidelineexample
    FOR EACH STATEMENT EXECUTE FUNCTION curation_refuse();
"""
UNGUARD = """
DROP TRIGGER append_only ON curation_guidelineexample;
DROP TRIGGER append_only_truncate ON curation_guidelineexample;
"""
FILL = """
INSERT INTO curation_guidelinerevision (campaign_id, number, text, change, by_id, at)
SELECT id, 1, guidelines, 'As the campaign was set up.', created_by_id, created_at FROM curation_campaign c
WHERE EXISTS (SELECT 1 FROM curation_guidelineexample e WHERE e.campaign_id = c.id)
  AND NOT EXISTS (SELECT 1 FROM curation_guidelinerevision r WHERE r.campaign_id = c.id);
UPDATE curation_guidelineexample e SET revision_id = placed.revision_id, position = placed.position
FROM (SELECT e.id, (row_number() OVER (PARTITION BY e.campaign_id ORDER BY e.is_good DESC, e.id) - 1)::int AS position,
             (SELECT r.id FROM curation_guidelinerevision r WHERE r.campaign_id = e.campaign_id ORDER BY r.number DESC LIMIT 1)
                 AS revision_id
      FROM curation_guidelineexample e) placed
WHERE placed.id = e.id;
SET CONSTRAINTS ALL IMMEDIATE;
"""
UNFILL = """
UPDATE curation_guidelineexample e SET campaign_id = r.campaign_id, is_good = coalesce(is_good, true)
FROM curation_guidelinerevision r WHERE r.id = e.revision_id;
SET CONSTRAINTS ALL IMMEDIATE;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("generation", "0004_combined_versions"),
        ("curation", "0026_scores"),
    ]

    operations = [
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.AlterModelOptions(name="guidelineexample", options={}),
        migrations.RenameField(model_name="guidelineexample", old_name="note", new_name="why"),
        migrations.AlterField(
            model_name="guidelineexample",
            name="why",
            field=models.CharField(
                blank=True, help_text="Why these are the right answers, in a sentence.", max_length=200
            ),
        ),
        migrations.AlterField(
            model_name="guidelineexample",
            name="is_good",
            field=models.BooleanField(help_text="Whether it passes; empty in a comparison.", null=True),
        ),
        migrations.AlterField(
            model_name="guidelineexample",
            name="campaign",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="examples",
                to="curation.campaign",
            ),
        ),
        migrations.AddField(
            model_name="guidelineexample",
            name="answers",
            field=models.JSONField(
                default=dict, help_text="Question name -> choice value, left and right as it is shown; none in a pick."
            ),
        ),
        migrations.AddField(
            model_name="guidelineexample",
            name="beside",
            field=models.ForeignKey(
                blank=True,
                help_text="To its right.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="generation.sample",
            ),
        ),
        migrations.AddField(
            model_name="guidelineexample",
            name="revision",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="examples",
                to="curation.guidelinerevision",
            ),
        ),
        migrations.AddField(
            model_name="guidelineexample", name="position", field=models.PositiveSmallIntegerField(null=True)
        ),
        migrations.RunSQL(FILL, UNFILL),
        migrations.RemoveField(model_name="guidelineexample", name="campaign"),
        migrations.AlterField(
            model_name="guidelineexample",
            name="revision",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="examples",
                to="curation.guidelinerevision",
            ),
        ),
        migrations.AlterField(
            model_name="guidelineexample", name="position", field=models.PositiveSmallIntegerField()
        ),
        migrations.AlterModelOptions(name="guidelineexample", options={"ordering": ["revision", "position"]}),
        migrations.AddConstraint(
            model_name="guidelineexample",
            constraint=models.UniqueConstraint(fields=("revision", "position"), name="guideline_example_place_once"),
        ),
        migrations.AlterField(
            model_name="item",
            name="is_gold",
            field=models.BooleanField(
                default=False,
                help_text="It has neither a place to fill nor a verdict: its answer is known, as that of gold or of an "
                "example of the guidelines, or it is a probe.",
            ),
        ),
        migrations.RunSQL(GUARD, UNGUARD),
    ]
