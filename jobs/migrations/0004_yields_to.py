"""A running job may be asked to give way to a more urgent one."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0003_pause'),
    ]

    operations = [
        migrations.AddField(
            model_name='job',
            name='yields_to',
            field=models.ForeignKey(blank=True, help_text='The more urgent job for which the running attempt was asked to stop.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='jobs.job'),
        ),
    ]
