"""What the model knows of raters is kept; how a pause is decided; and how many answers of others are to one item is counted."""

import django.db.models.deletion
from django.db import migrations, models

# Answers of others are counted by item too; those that are there already as well.
FILL = """
INSERT INTO curation_tally (campaign_id, rater_id, what, bucket, question, key, n, at, is_folded)
SELECT campaign_id, rater_id, 'squares', '', '', '', sum(others * others), NULL, true FROM (
    SELECT i.campaign_id, j.rater_id, sum((SELECT sum(value::int) FROM jsonb_each_text(v.tallies -> a.key)) - 1) AS others
    FROM curation_judgment j JOIN curation_item i ON i.id = j.item_id JOIN curation_verdict v ON v.item_id = i.id
    JOIN curation_campaign c ON c.id = i.campaign_id AND c.kind NOT IN ('compare', 'sets')
    LEFT JOIN curation_judgment later ON later.supersedes_id = j.id
    LEFT JOIN curation_assignment barred ON barred.id = j.assignment_id AND barred.excluded,
         LATERAL jsonb_each_text(j.answers) a
    WHERE later.id IS NULL AND barred.id IS NULL AND j.action = 'answer' AND v.tallies -> a.key IS NOT NULL
    GROUP BY i.campaign_id, j.rater_id, i.id) item
GROUP BY 1, 2 HAVING sum(others * others) <> 0;
"""
CLEAR = "DELETE FROM curation_tally WHERE what = 'squares';"


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0029_question_revisions'),
    ]

    operations = [
        migrations.AddField(
            model_name='campaign',
            name='recounted_judgments',
            field=models.PositiveBigIntegerField(db_default=0, default=0, help_text='How many judgments had come by then; how many more is news to an estimate.'),
        ),
        migrations.AlterField(
            model_name='campaign',
            name='recounted_at',
            field=models.DateTimeField(blank=True, help_text='When all verdicts were last counted anew, and with them what an estimated rule knows of the raters.', null=True),
        ),
        migrations.CreateModel(
            name='Estimate',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('question', models.CharField(max_length=60)),
                ('answers', models.JSONField(help_text='What was answered; sides of a comparison are baseline and candidate.')),
                ('shares', models.JSONField(help_text='How often each of them is the true one.')),
                ('tables', models.JSONField(help_text='Rater id -> for each truth, how often the rater gives each answer.')),
                ('usual', models.JSONField(help_text='The same of the raters together, weighed by their judgments.')),
                ('items', models.PositiveIntegerField(help_text='Of how many items.')),
                ('campaign', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='estimates', to='curation.campaign')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('campaign', 'question'), name='estimate_once')],
            },
        ),
        migrations.AlterField(
            model_name='campaign',
            name='pause_percent',
            field=models.PositiveSmallIntegerField(default=70, help_text='A rater who is proved to be below this, in percent, is paused.'),
        ),
        migrations.AlterField(
            model_name='campaign',
            name='pause_window',
            field=models.PositiveSmallIntegerField(default=0, help_text="After each so many gold items the search for a rater's decline begins once more; 0 to pause nobody."),
        ),
        migrations.RunSQL(FILL, CLEAR),
    ]
