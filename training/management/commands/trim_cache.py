"""`manage.py trim_cache`: keeps the cache of latents and texts of this machine to its bound, as the end of each run does."""

from typing import Any

from django.core.management.base import BaseCommand

from training import caches


class Command(BaseCommand):
    help = "Delete what was used longest ago of this machine's cache of latents and texts, down to TRAINING_CACHE_GIB."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(caches.in_words(caches.trim()))
