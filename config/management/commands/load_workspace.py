"""`manage.py load_workspace`: what `manage.py demo` runs when everything is up."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config.workspace import WorkspaceRefused, load_demo_workspace


class Command(BaseCommand):
    help = (
        "Loads the demo workspace: the base model, prompt sets, campaigns with freshly generated samples, and accounts."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            load_demo_workspace(self.stdout)
        except WorkspaceRefused as refused:
            raise CommandError(str(refused)) from refused
