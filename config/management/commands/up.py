"""`manage.py up`: manage.py runs it before Django is set up; this makes it known to `help` and `call_command`."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from config.embedded.commands import BEFORE_DJANGO, add_arguments, run


class Command(BaseCommand):
    help = BEFORE_DJANGO["up"]
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(run("up", port=options["port"], host=options["host"], data_dir=options["data_dir"]))
