#!/usr/bin/env python
"""Atelier's command line: `python manage.py help` lists the commands."""

import os
import sys

if sys.version_info < (3, 11):
    sys.exit("Atelier needs Python 3.11 or newer; this is Python %d.%d. Run it with a newer one." % sys.version_info[:2])


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Django is not installed for this Python. Run `make demo` once, or use .venv/bin/python.")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
