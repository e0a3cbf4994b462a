"""What a rater said may be excluded, with a reason that is only ever added to."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


GUARD = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON curation_raterexclusion
    FOR EACH ROW EXECUTE FUNCTION curation_refuse();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON curation_raterexclusion
    FOR EACH STATEMENT EXECUTE FUNCTION curation_refuse();
"""
UNGUARD = """
DROP TRIGGER append_only ON curation_raterexclusion;
DROP TRIGGER append_only_truncate ON curation_raterexclusion;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0022_version_guidelines'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        # Tables are altered here whose rows migrations before may have changed in the same transaction.
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='RaterExclusion',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('excluded', models.BooleanField(help_text='Whether they are excluded from then on, or taken in again.')),
                ('reason', models.CharField(max_length=300)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.AddField(
            model_name='assignment',
            name='excluded',
            field=models.BooleanField(db_default=False, default=False, help_text="What its rater says of the item does not count, because a curator excluded the rater's judgments."),
        ),
        migrations.AddField(
            model_name='campaignrater',
            name='excluded',
            field=models.BooleanField(db_default=False, default=False, help_text="A curator excluded this rater's judgments here: they do not count."),
        ),
        migrations.AlterField(
            model_name='item',
            name='judged',
            field=models.PositiveSmallIntegerField(default=0, help_text='Raters whose standing judgment is an answer that counts.'),
        ),
        migrations.AddIndex(
            model_name='assignment',
            index=models.Index(condition=models.Q(('excluded', True)), fields=['id'], name='assignment_excluded'),
        ),
        migrations.AddField(
            model_name='raterexclusion',
            name='by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='raterexclusion',
            name='campaign',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='exclusions', to='curation.campaign'),
        ),
        migrations.AddField(
            model_name='raterexclusion',
            name='rater',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddIndex(
            model_name='raterexclusion',
            index=models.Index(fields=['campaign', 'rater', '-id'], name='exclusion_newest'),
        ),
        migrations.AddConstraint(
            model_name='raterexclusion',
            constraint=models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='exclusion_has_reason'),
        ),
        migrations.RunSQL(GUARD, UNGUARD),
    ]
