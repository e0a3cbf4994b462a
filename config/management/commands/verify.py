"""`manage.py verify`: re-hashes files, manifests and lineage, and says what differs."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand, CommandError

ROOMS = ["jobs", "generation", "curation", "training"]


def problems() -> Iterator[str]:
    """What every room finds wrong with its rows and files, a sentence each."""
    for room in ROOMS:
        for sentence in import_module(f"{room}.integrity").problems():
            yield f"{room}: {sentence}"


class Command(BaseCommand):
    help = "Re-hash files, manifests and lineage; print what differs; exit status 1 if anything does."

    def handle(self, *args: Any, **options: Any) -> None:
        found = 0
        for sentence in problems():
            found += 1
            self.stdout.write(sentence)
        if found:
            raise CommandError(f"{found} {'thing differs' if found == 1 else 'things differ'}.", returncode=1)
        self.stdout.write("Everything is as it was written: files, manifests and lineage agree.")
