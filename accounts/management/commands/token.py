"""`manage.py token EMAIL [--scope S ...]`: prints a new API token once."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.api import create_token
from accounts.models import Scope, User, normalize_email


class Command(BaseCommand):
    help = "Print a new API token of a person once; only its hash is kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")
        parser.add_argument(
            "--scope", action="append", choices=Scope.values, help="may be given several times; default: rate"
        )
        parser.add_argument("--name", default="command line")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(email=normalize_email(options["email"]), is_active=True).first()
        if user is None:
            raise CommandError(f"Nobody with the address {options['email']} may sign in here.")
        self.stdout.write(create_token(user, scopes=options["scope"] or [Scope.RATE], name=options["name"]))
