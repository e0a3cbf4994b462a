"""`manage.py recount`: counts the campaigns' items and judgments anew, after something changed their rows behind our back."""

from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from curation import tallies
from curation.models import Campaign


class Command(BaseCommand):
    help = "Count the items and judgments of every campaign anew; says which counts were wrong."

    def handle(self, *args: Any, **options: Any) -> None:
        for campaign in Campaign.objects.order_by("pk"):
            with transaction.atomic():
                # Judgments wait meanwhile: none comes in between the counting and the counts.
                list(campaign.items.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))
                wrong = len(tallies.differences(campaign))
                if wrong:
                    tallies.fill(campaign)
            self.stdout.write(f"{campaign}: {f'{wrong} counts were wrong.' if wrong else 'all counts are right.'}")
