"""Datasets of preference pairs: an entry may name the sample that its own was preferred to.

Rows that exist already are of the kind images and reject nothing. The columns get their defaults as they are added, which
updates no row: the guards of 0002 would refuse that.
"""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import F, Q


class Migration(migrations.Migration):
    dependencies = [("curation", "0002_guards"), ("generation", "0003_prompt_caption")]

    operations = [
        migrations.AddField(
            model_name="dataset",
            name="kind",
            field=models.CharField(
                choices=[("images", "Images"), ("pairs", "Pairs")],
                default="images",
                help_text="What an entry is; its campaigns decide it when it is made, and it never changes.",
                max_length=16,
            ),
        ),
        migrations.AddField(
            model_name="datasetentry",
            name="rejected",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="generation.sample",
            ),
        ),
        migrations.AddField(
            model_name="datasetentry",
            name="rejected_image",
            field=models.CharField(
                blank=True,
                default="",
                help_text="SHA-256 of the PNG file of a pair's rejected sample.",
                max_length=64,
            ),
        ),
        migrations.RemoveConstraint(model_name="datasetentry", name="dataset_entry_sample_once"),
        migrations.AddConstraint(
            model_name="datasetentry",
            constraint=models.UniqueConstraint(
                fields=("version", "sample", "rejected"), name="dataset_entry_sample_once", nulls_distinct=False
            ),
        ),
        migrations.AddConstraint(
            model_name="datasetentry",
            constraint=models.CheckConstraint(
                condition=Q(rejected=None, rejected_image="") | (Q(rejected__isnull=False) & ~Q(rejected_image="")),
                name="dataset_entry_rejected_whole",
            ),
        ),
        migrations.AddConstraint(
            model_name="datasetentry",
            constraint=models.CheckConstraint(
                condition=~Q(rejected_image=F("image")), name="dataset_entry_images_differ"
            ),
        ),
    ]
