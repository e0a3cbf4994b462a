"""Probes: what raters are handed again, at a rate that the campaign has; the database keeps every one."""

import django.db.models.deletion
import django.db.models.functions
from django.conf import settings
from django.db import migrations, models

GUARD = (
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON curation_probe "
    "FOR EACH ROW EXECUTE FUNCTION curation_refuse();"
    "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON curation_probe "
    "FOR EACH STATEMENT EXECUTE FUNCTION curation_refuse();"
)
UNGUARD = (
    "DROP TRIGGER append_only ON curation_probe; DROP TRIGGER append_only_truncate ON curation_probe;"
)


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0015_item_order'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Probe',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.Now())),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.AddField(
            model_name='campaign',
            name='probe_percent',
            field=models.PositiveSmallIntegerField(db_default=0, default=0, help_text='How much of what a rater gets they judged before (curation.probes), in percent; 0 to 10.'),
        ),
        migrations.AlterField(
            model_name='campaignrater',
            name='handed_out',
            field=models.PositiveIntegerField(default=0, help_text='Items handed to this rater since the campaign has gold or probes; says when the next of these comes.'),
        ),
        migrations.AlterField(
            model_name='item',
            name='is_gold',
            field=models.BooleanField(default=False, help_text='It measures raters, and has neither a place to fill nor a verdict: its answer is known, or it is a probe.'),
        ),
        migrations.AddConstraint(
            model_name='campaign',
            constraint=models.CheckConstraint(condition=models.Q(('probe_percent__lte', 10)), name='campaign_probes_at_most_a_tenth'),
        ),
        migrations.AddField(
            model_name='probe',
            name='item',
            field=models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='probe', to='curation.item'),
        ),
        migrations.AddField(
            model_name='probe',
            name='of',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='probes', to='curation.item'),
        ),
        migrations.AddField(
            model_name='probe',
            name='rater',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddConstraint(
            model_name='probe',
            constraint=models.UniqueConstraint(fields=('of', 'rater'), name='probe_once_a_rater'),
        ),
        migrations.RunSQL(GUARD, UNGUARD),
    ]
