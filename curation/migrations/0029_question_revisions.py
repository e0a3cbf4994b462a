"""How questions read has revisions, which are only ever added; what campaigns ask now is their first. Judgments and leases know
the revision of their time, as they know that of the guidelines. Judgments from before do not say it: they are never rewritten."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


GUARD = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON curation_questionrevision
    FOR EACH ROW EXECUTE FUNCTION curation_refuse();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON curation_questionrevision
    FOR EACH STATEMENT EXECUTE FUNCTION curation_refuse();
"""
UNGUARD = """
DROP TRIGGER append_only ON curation_questionrevision;
DROP TRIGGER append_only_truncate ON curation_questionrevision;
"""
FILL = """
INSERT INTO curation_questionrevision (campaign_id, number, questions, change, by_id, at)
SELECT c.id, 1, asked.questions, 'As the campaign was set up.', c.created_by_id, c.created_at
FROM curation_campaign c JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object(
        'name', q.name, 'text', q.text, 'help', q.help, 'choices', q.choices, 'required', q.required, 'multiple', q.multiple,
        'reasons', q.reasons, 'needs_reason', q.needs_reason, 'marks', q.marks) ORDER BY q.position) AS questions
    FROM curation_question q WHERE q.campaign_id = c.id) asked ON asked.questions IS NOT NULL;
UPDATE curation_campaignrater SET questions_read = 1 WHERE guidelines_read IS NOT NULL;
INSERT INTO curation_tally (campaign_id, rater_id, what, bucket, question, key, n, at, is_folded)
SELECT campaign_id, 0, 'wording', '', '', '', sum(n), NULL, true FROM curation_tally WHERE what = 'revision'
GROUP BY campaign_id HAVING sum(n) <> 0;
SET CONSTRAINTS ALL IMMEDIATE;
"""
CLEAR = "DELETE FROM curation_tally WHERE what = 'wording';"


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0028_example_rounds'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.AddField(
            model_name='campaignrater',
            name='questions_read',
            field=models.PositiveIntegerField(blank=True, help_text='The same of the questions; none before the first lease.', null=True),
        ),
        migrations.AddField(
            model_name='datasetversion',
            name='questions',
            field=models.JSONField(blank=True, db_default=models.Value({}, models.JSONField()), default=dict, help_text='The same of the revisions of its questions.'),
        ),
        migrations.AddField(
            model_name='question',
            name='help',
            field=models.CharField(blank=True, db_default='', default='', help_text='A sentence below it.', max_length=300),
        ),
        migrations.CreateModel(
            name='QuestionRevision',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField(help_text='From 1 on, in each campaign.')),
                ('questions', models.JSONField()),
                ('change', models.CharField(help_text='What it changed, in a sentence.', max_length=200)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('campaign', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='question_revisions', to='curation.campaign')),
            ],
            options={
                'ordering': ['campaign', '-number'],
            },
        ),
        migrations.AddField(
            model_name='assignment',
            name='question_revision',
            field=models.ForeignKey(blank=True, db_index=False, help_text='The same of the questions.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='curation.questionrevision'),
        ),
        migrations.AddField(
            model_name='judgment',
            name='question_revision',
            field=models.ForeignKey(blank=True, db_index=False, help_text='How the questions read to the rater; none where that is not known.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='curation.questionrevision'),
        ),
        migrations.AddConstraint(
            model_name='questionrevision',
            constraint=models.UniqueConstraint(fields=('campaign', 'number'), name='question_revision_once'),
        ),
        migrations.AddConstraint(
            model_name='questionrevision',
            constraint=models.CheckConstraint(condition=models.Q(('number__gte', 1)), name='question_revision_from_one'),
        ),
        migrations.RunSQL(FILL, CLEAR),
        migrations.RunSQL(GUARD, UNGUARD),
    ]
