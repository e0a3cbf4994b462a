"""Why a question was failed: reasons, marked words and a point, kept with the judgment. Rows that exist have none of it."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0004_adjudications'),
    ]

    operations = [
        migrations.AddField(
            model_name='judgment',
            name='details',
            field=models.JSONField(blank=True, default=dict, help_text='Why a question was failed: question name -> reasons, words (places in the prompt), point (x, y; 0 to 1).'),
        ),
        migrations.AddField(
            model_name='question',
            name='marks',
            field=models.CharField(blank=True, choices=[('', 'Nothing'), ('words', 'Words of the prompt'), ('point', 'A place in the picture')], default='', max_length=8),
        ),
        migrations.AddField(
            model_name='question',
            name='needs_reason',
            field=models.BooleanField(default=False, help_text='Whether a fail without a reason is refused.'),
        ),
        migrations.AddField(
            model_name='question',
            name='reasons',
            field=models.JSONField(blank=True, default=list),
        ),
    ]
