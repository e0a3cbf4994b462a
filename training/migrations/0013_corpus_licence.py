"""The licence of a corpus's images, in words."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0012_own_tables")]

    operations = [
        migrations.AddField(
            model_name="corpus",
            name="licence",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="What people say of its images, an SPDX identifier where there is one; empty: not known.",
                max_length=200,
            ),
        ),
    ]
