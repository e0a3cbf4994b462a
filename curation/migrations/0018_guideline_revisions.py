"""Guidelines have revisions, which are only ever added; what campaigns have now is their first."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


GUARD = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON curation_guidelinerevision
    FOR EACH ROW EXECUTE FUNCTION curation_refuse();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON curation_guidelinerevision
    FOR EACH STATEMENT EXECUTE FUNCTION curation_refuse();
"""
UNGUARD = """
DROP TRIGGER append_only ON curation_guidelinerevision;
DROP TRIGGER append_only_truncate ON curation_guidelinerevision;
"""
FILL = """
INSERT INTO curation_guidelinerevision (campaign_id, number, text, change, by_id, at)
SELECT id, 1, guidelines, 'As the campaign was set up.', created_by_id, created_at FROM curation_campaign;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0017_tally_of_hour'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='GuidelineRevision',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField(help_text='From 1 on, in each campaign.')),
                ('text', models.TextField(blank=True)),
                ('change', models.CharField(help_text='What it changed, in a sentence.', max_length=200)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('campaign', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='revisions', to='curation.campaign')),
            ],
            options={
                'ordering': ['campaign', '-number'],
                'constraints': [models.UniqueConstraint(fields=('campaign', 'number'), name='guideline_revision_once'), models.CheckConstraint(condition=models.Q(('number__gte', 1)), name='guideline_revision_from_one')],
            },
        ),
        migrations.RunSQL(GUARD, UNGUARD),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
