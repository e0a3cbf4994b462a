"""Each campaign has a rule, and each item one verdict by it, which names the rule; a dataset follows its campaigns."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0008_tallies'),
        ('jobs', '0001_initial'),
    ]

    operations = [
        # Checks of rows that this very transaction wrote come first: Postgres alters no table while one waits.
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED", migrations.RunSQL.noop),
        migrations.RemoveConstraint(
            model_name='verdict',
            name='verdict_once_a_rule',
        ),
        migrations.RemoveField(
            model_name='dataset',
            name='rule',
        ),
        migrations.AddField(
            model_name='campaign',
            name='recount_job',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='jobs.job'),
        ),
        migrations.AddField(
            model_name='campaign',
            name='recounted_at',
            field=models.DateTimeField(blank=True, help_text='When all verdicts were last counted anew; an estimated rule knows nothing later.', null=True),
        ),
        migrations.AddField(
            model_name='campaign',
            name='rule',
            field=models.CharField(db_default='majority', default='majority', help_text='How judgments become a verdict.', max_length=32),
        ),
        migrations.AddField(
            model_name='verdict',
            name='posteriors',
            field=models.JSONField(blank=True, help_text='Question name -> choice value -> how likely it is true, where the rule is an estimated one.', null=True),
        ),
        migrations.AlterField(
            model_name='datasetversion',
            name='rule',
            field=models.CharField(help_text='The rules of the verdicts behind it, joined by +.', max_length=1000),
        ),
        migrations.AlterField(
            model_name='verdict',
            name='item',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='verdicts', to='curation.item'),
        ),
        migrations.AddConstraint(
            model_name='verdict',
            constraint=models.UniqueConstraint(fields=('item',), name='verdict_once'),
        ),
    ]
