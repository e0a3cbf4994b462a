"""Why raters skipped items is listed for curators: those that say why are few, and found by an index of their own."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0031_rater_estimates'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='judgment',
            index=models.Index(condition=models.Q(('action', 'skip'), models.Q(('reason', ''), _negated=True)), fields=['-received_at'], name='judgment_skip_reason'),
        ),
    ]
