"""Approvals of frozen versions, which are only ever added. What was frozen before, and could be trained on, stays so."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

GUARD = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON curation_approval
    FOR EACH ROW EXECUTE FUNCTION curation_refuse();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON curation_approval
    FOR EACH STATEMENT EXECUTE FUNCTION curation_refuse();
"""
UNGUARD = "DROP TRIGGER append_only ON curation_approval; DROP TRIGGER append_only_truncate ON curation_approval;"
FILL = """
INSERT INTO curation_approval (version_id, act, note)
SELECT id, 'approved', 'It was frozen before versions had to be approved.' FROM curation_datasetversion ORDER BY id;
SET CONSTRAINTS ALL IMMEDIATE;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0032_skip_reasons'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Approval',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('act', models.CharField(choices=[('asked', 'Approval asked for'), ('approved', 'Approved'), ('refused', 'Refused'), ('withdrawn', 'Approval withdrawn')], max_length=16)),
                ('note', models.CharField(blank=True, max_length=300)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('by', models.ForeignKey(help_text='Nobody for versions that were frozen before anybody was asked.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='approvals', to='curation.datasetversion')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.CheckConstraint(condition=models.Q(('act__in', ['asked', 'approved']), models.Q(('note', ''), _negated=True), _connector='OR'), name='approval_says_why_not')],
            },
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.RunSQL(GUARD, UNGUARD),
    ]
