"""A prompt may carry a caption: what its images are judged by and taught under."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("generation", "0002_guards")]

    operations = [
        migrations.AddField(
            model_name="prompt",
            name="caption",
            field=models.CharField(blank=True, help_text="Empty: the prompt itself.", max_length=1000),
        ),
        migrations.AddConstraint(
            model_name="prompt",
            constraint=models.CheckConstraint(
                condition=models.Q(("caption", models.F("text")), _negated=True), name="prompt_caption_differs"
            ),
        ),
    ]
