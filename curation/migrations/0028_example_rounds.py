"""A revision of the guidelines may ask raters to answer its changed examples first. What they answer is only ever added to."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


GUARD = "".join(
    f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON curation_{table} "
    "FOR EACH ROW EXECUTE FUNCTION curation_refuse();"
    f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON curation_{table} "
    "FOR EACH STATEMENT EXECUTE FUNCTION curation_refuse();"
    for table in ("exampleanswer", "exampleround")
)
UNGUARD = "".join(
    f"DROP TRIGGER append_only ON curation_{table}; DROP TRIGGER append_only_truncate ON curation_{table};"
    for table in ("exampleanswer", "exampleround")
)


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0027_guideline_examples'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='ExampleAnswer',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('up_to', models.PositiveIntegerField()),
                ('attempt', models.PositiveSmallIntegerField()),
                ('answers', models.JSONField(help_text='Question name -> choice value, left and right as shown.')),
                ('right', models.BooleanField()),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='ExampleRound',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('up_to', models.PositiveIntegerField()),
                ('attempt', models.PositiveSmallIntegerField()),
                ('right', models.PositiveSmallIntegerField()),
                ('of', models.PositiveSmallIntegerField()),
                ('percent', models.PositiveSmallIntegerField(help_text='How many had to be right.')),
                ('passed', models.BooleanField()),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.AddField(
            model_name='campaignrater',
            name='examples_passed',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='The revision up to which the rater passed the examples of the guidelines that it asks first; 0 for none.'),
        ),
        migrations.AddField(
            model_name='guidelineexample',
            name='asked_since',
            field=models.PositiveIntegerField(blank=True, help_text='The revision that asks raters to answer it first; empty where none does.', null=True),
        ),
        migrations.AddField(
            model_name='guidelinerevision',
            name='asks_percent',
            field=models.PositiveSmallIntegerField(db_default=80, default=80, help_text='How many of those must be right, in percent.'),
        ),
        migrations.AddField(
            model_name='guidelinerevision',
            name='asks_up_to',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='The newest revision, of those up to this one, that asks raters to answer examples first which this one has.'),
        ),
        migrations.AddConstraint(
            model_name='guidelinerevision',
            constraint=models.CheckConstraint(condition=models.Q(('asks_percent__gte', 1), ('asks_percent__lte', 100), ('asks_up_to__lte', models.F('number'))), name='guideline_revision_asks_in_range'),
        ),
        migrations.AddField(
            model_name='exampleanswer',
            name='campaign',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='example_answers', to='curation.campaign'),
        ),
        migrations.AddField(
            model_name='exampleanswer',
            name='example',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='curation.guidelineexample'),
        ),
        migrations.AddField(
            model_name='exampleanswer',
            name='rater',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='exampleround',
            name='campaign',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='example_rounds', to='curation.campaign'),
        ),
        migrations.AddField(
            model_name='exampleround',
            name='rater',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddIndex(
            model_name='exampleanswer',
            index=models.Index(fields=['campaign', 'rater', 'attempt'], name='example_answer_of_round'),
        ),
        migrations.AddConstraint(
            model_name='exampleanswer',
            constraint=models.UniqueConstraint(fields=('rater', 'example', 'attempt'), name='example_answer_once'),
        ),
        migrations.AddConstraint(
            model_name='exampleround',
            constraint=models.UniqueConstraint(fields=('campaign', 'rater', 'attempt'), name='example_round_once'),
        ),
        migrations.RunSQL(GUARD, UNGUARD),
    ]
