

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='worker',
            name='device_memory_mb',
            field=models.PositiveIntegerField(default=0, help_text='Memory of the smallest of its GPUs, or of its machine; 0 where it does not say.'),
        ),
    ]
