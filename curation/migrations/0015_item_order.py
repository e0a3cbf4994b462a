"""The order in which a campaign hands out its items, with the rank that an index serves it by."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0014_max_overlap'),
    ]

    operations = [
        migrations.AddField(
            model_name='campaign',
            name='by_bucket',
            field=models.BooleanField(db_default=False, default=False, help_text='Whether buckets take turns, so that they fill evenly.'),
        ),
        migrations.AddField(
            model_name='campaign',
            name='item_order',
            field=models.CharField(choices=[('position', 'As set up'), ('random', 'Mixed'), ('least', 'Least judged first'), ('closest', 'Closest votes first')], db_default='position', default='position', max_length=16),
        ),
        migrations.AddField(
            model_name='campaign',
            name='order_seed',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='What the mixed order was drawn from; the same gives the same order.'),
        ),
        migrations.AddField(
            model_name='item',
            name='rank',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='Where the campaign has another order: what is handed out first has the lowest (curation.order).'),
        ),
        migrations.AlterField(
            model_name='item',
            name='position',
            field=models.PositiveIntegerField(help_text='The order in which the campaign was set up.'),
        ),
        migrations.AddIndex(
            model_name='item',
            index=models.Index(condition=models.Q(('is_open', True)), fields=['campaign', 'rank', 'position'], name='item_ranked'),
        ),
    ]
