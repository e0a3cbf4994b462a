"""Judgments of the grid name their page. Older rows were shown alone: the columns are empty for them, and no row is updated."""

from django.db import migrations, models
from django.db.models import F, Q


class Migration(migrations.Migration):
    dependencies = [("curation", "0009_rules")]

    operations = [
        migrations.AddField(
            model_name="judgment",
            name="page",
            field=models.UUIDField(
                blank=True,
                help_text="Shared by the judgments of one page of the grid; none where it was shown alone.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="judgment",
            name="place",
            field=models.PositiveSmallIntegerField(blank=True, help_text="Where on the page it was, from 0.", null=True),
        ),
        migrations.AddField(
            model_name="judgment",
            name="page_size",
            field=models.PositiveSmallIntegerField(blank=True, help_text="How many were on the page.", null=True),
        ),
        migrations.AddConstraint(
            model_name="judgment",
            constraint=models.CheckConstraint(
                condition=Q(page=None, place=None, page_size=None)
                | Q(page__isnull=False, place__lt=F("page_size"), place__isnull=False, page_size__isnull=False),
                name="judgment_page_whole",
            ),
        ),
    ]
