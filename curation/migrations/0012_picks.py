"""Picks: a question may take several choices, and each candidate of an item has a verdict of its own."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("curation", "0011_qualification")]

    operations = [
        migrations.AddField(
            model_name="itemsample",
            name="picked",
            field=models.BooleanField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="question",
            name="multiple",
            field=models.BooleanField(
                default=False, help_text="Whether several choices that accept may be given together."
            ),
        ),
    ]
