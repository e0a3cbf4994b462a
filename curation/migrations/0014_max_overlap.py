"""A campaign may ask for more judgments of what is not decided."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0013_tally_of_minute'),
    ]

    operations = [
        migrations.AddField(
            model_name='campaign',
            name='max_overlap',
            field=models.PositiveSmallIntegerField(blank=True, help_text='Judgments wanted at most, of an item that is not decided; empty is as many as of each.', null=True),
        ),
        migrations.AddConstraint(
            model_name='campaign',
            constraint=models.CheckConstraint(condition=models.Q(('max_overlap', None), models.Q(('max_overlap__gte', models.F('overlap')), ('max_overlap__lte', 25)), _connector='OR'), name='campaign_max_overlap_in_range'),
        ),
    ]
