#!/usr/bin/env python
"""Atelier's command line: `python manage.py help` lists the commands."""

import gc
import os
import sys

if sys.version_info < (3, 11):
    sys.exit(
        "Atelier needs Python 3.11 or newer; this is Python %d.%d. Run it with a newer one." % sys.version_info[:2]
    )


# A command makes far more objects that stay than garbage, `migrate` above all: it took half as long again while the garbage
# collector looked for some after every 700 of them.
gc.set_threshold(100_000, 20, 100)


def run() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line

        from config.embedded import Problem
        from config.embedded.commands import BEFORE_DJANGO, main, services_for
    except ImportError as error:
        sys.exit("%s is not installed for this Python. Run `make demo` once, or use .venv/bin/python." % error.name)
    if sys.argv[1:2] and sys.argv[1] in BEFORE_DJANGO:
        sys.exit(main(sys.argv[1:]))
    try:
        with services_for(sys.argv[1:]):
            execute_from_command_line(sys.argv)
    except (Problem, ImproperlyConfigured) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    run()
