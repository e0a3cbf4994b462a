"""Judgments and leases know the guidelines of their time. What older rows had is not known, and stays empty."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("curation", "0019_judgment_newest")]

    operations = [
        migrations.AddField(
            model_name="assignment",
            name="guideline_revision",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="The newest when it was leased; none where that was before this was kept.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="curation.guidelinerevision",
            ),
        ),
        migrations.AddField(
            model_name="judgment",
            name="guideline_revision",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="What the rater had to read; none where that is not known.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="curation.guidelinerevision",
            ),
        ),
    ]
