"""Frozen versions name the revisions of guidelines behind them. Those frozen before name none, and keep their hash."""

from django.db import migrations, models
from django.db.models import Value


class Migration(migrations.Migration):
    dependencies = [("curation", "0021_guidelines_read")]

    operations = [
        migrations.AddField(
            model_name="datasetversion",
            name="guidelines",
            field=models.JSONField(
                blank=True,
                db_default=Value({}, models.JSONField()),
                default=dict,
                help_text="Campaign's slug -> revisions of its guidelines behind the judgments, where these were several.",
            ),
        ),
    ]
