"""Decisions of curators over what judges are split about, and which verdicts are that."""

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.conf import settings
from django.db import migrations, models


# What there is already says what its rule says, and is contested where judges contradict each other.
FILL = """
UPDATE curation_verdict SET by_rule = outcome, contested = outcome = 'split';
UPDATE curation_verdict verdict SET contested = true
FROM curation_item item, curation_question question
WHERE item.id = verdict.item_id AND verdict.outcome = 'tie'
  AND question.campaign_id = item.campaign_id
  AND question.position = (SELECT min(position) FROM curation_question first WHERE first.campaign_id = item.campaign_id)
  AND (verdict.tallies -> question.name -> 'baseline')::int = (verdict.tallies -> question.name -> 'candidate')::int;
"""

# Decisions of curators are as append-only as judgments, and supersede within their own item only.
GUARD = """
CREATE FUNCTION curation_check_adjudication() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.supersedes_id IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM curation_adjudication a WHERE a.id = NEW.supersedes_id AND a.item_id = NEW.item_id) THEN
        RAISE EXCEPTION 'adjudication % supersedes one of another item', NEW.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER adjudication_fits BEFORE INSERT ON curation_adjudication
    FOR EACH ROW EXECUTE FUNCTION curation_check_adjudication();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON curation_adjudication
    FOR EACH ROW EXECUTE FUNCTION curation_refuse();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON curation_adjudication
    FOR EACH STATEMENT EXECUTE FUNCTION curation_refuse();
"""
UNGUARD = "DROP FUNCTION curation_check_adjudication CASCADE; DROP TRIGGER append_only ON curation_adjudication; DROP TRIGGER append_only_truncate ON curation_adjudication;"


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0003_pairs'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Adjudication',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('action', models.CharField(choices=[('decide', 'Decided'), ('undo', 'Undone')], default='decide', max_length=8)),
                ('answers', models.JSONField(default=dict, help_text='Question name -> choice value.')),
                ('order', models.JSONField(default=list, help_text='Slots as they were shown, from left to right.')),
                ('reason', models.CharField(blank=True, max_length=300)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'ordering': ['at', 'id'],
            },
        ),
        migrations.AddField(
            model_name='datasetentry',
            name='adjudication_ids',
            field=models.JSONField(default=list, help_text='The decisions of curators behind it, sorted; empty where judgments alone decided.'),
        ),
        migrations.AddField(
            model_name='item',
            name='adjudicated',
            field=models.CharField(blank=True, db_default='', default='', help_text='The outcome that a curator decided on, which stands above what the rule says; empty where nobody did.', max_length=16),
        ),
        migrations.AddField(
            model_name='verdict',
            name='by_rule',
            field=models.CharField(blank=True, choices=[('accepted', 'Accepted'), ('rejected', 'Rejected'), ('split', 'Split'), ('pending', 'Pending'), ('baseline', 'Baseline preferred'), ('candidate', 'Candidate preferred'), ('tie', 'Tie')], default='', help_text='What the rule alone says.', max_length=16),
        ),
        migrations.AddField(
            model_name='verdict',
            name='contested',
            field=models.BooleanField(db_default=False, default=False, help_text='The item has its judgments, and they contradict each other.'),
        ),
        migrations.AlterField(
            model_name='verdict',
            name='outcome',
            field=models.CharField(choices=[('accepted', 'Accepted'), ('rejected', 'Rejected'), ('split', 'Split'), ('pending', 'Pending'), ('baseline', 'Baseline preferred'), ('candidate', 'Candidate preferred'), ('tie', 'Tie')], help_text='What stands.', max_length=16),
        ),
        migrations.AddIndex(
            model_name='judgment',
            index=models.Index(condition=models.Q(('action', 'flag')), fields=['item'], name='judgment_flag'),
        ),
        migrations.AddIndex(
            model_name='verdict',
            index=models.Index(condition=models.Q(('contested', True)), fields=['item'], name='verdict_contested'),
        ),
        migrations.AddField(
            model_name='adjudication',
            name='by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='adjudications', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='adjudication',
            name='item',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='adjudications', to='curation.item'),
        ),
        migrations.AddField(
            model_name='adjudication',
            name='supersedes',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='superseded_by', to='curation.adjudication'),
        ),
        migrations.AddConstraint(
            model_name='adjudication',
            constraint=models.UniqueConstraint(condition=models.Q(('supersedes__isnull', True)), fields=('item',), name='adjudication_first_once'),
        ),
        migrations.AddConstraint(
            model_name='adjudication',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('action', 'undo'), _negated=True), ('supersedes__isnull', False), _connector='OR'), name='adjudication_undo_supersedes'),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.RunSQL(GUARD, UNGUARD),
    ]
