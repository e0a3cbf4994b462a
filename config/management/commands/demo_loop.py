"""`manage.py demo_loop [--json]`: one turn of the loop, with simulated raters who submit over HTTP."""

import json
import secrets
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config.embedded.whole import running_web
from config.loop.raters import Unreachable
from config.loop.turn import StepFailed, Turn


class Command(BaseCommand):
    help = "Do the loop once with simulated raters, on what runs here; exit status 1 if any step did not really happen."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
        parser.add_argument("--name", default="", help="the turn's name; the same name goes on with the same turn")
        parser.add_argument("--images", type=int, default=3, help="images of each prompt (3)")
        parser.add_argument("--steps", type=int, default=120, help="training steps (120)")
        parser.add_argument("--batch-size", type=int, default=16, help="of the training run (16)")
        parser.add_argument("--web-url", default="", help="the web server, where it is not the one that runs here")

    def handle(self, *args: Any, **options: Any) -> None:
        found = running_web(Path(settings.DATA_DIR))
        web_url = options["web_url"] or (found["web_url"] if found else "")
        if not web_url:
            raise CommandError("No web server runs on this data folder. Start it with `make demo`, or give --web-url.")
        as_json = options["json"]
        turn = Turn(
            name=options["name"] or f"Loop {secrets.token_hex(3)}",
            web_url=web_url,
            say=lambda text: print(text, file=sys.stderr if as_json else sys.stdout, flush=True),
            images_per_prompt=options["images"],
            training_steps=options["steps"],
            batch_size=options["batch_size"],
        )
        try:
            report = turn.go() | {"ok": True}
        except (StepFailed, Unreachable, httpx.HTTPError) as failed:
            report = turn.report | {"ok": False, "failed": str(failed)}
        if as_json:
            self.stdout.write(json.dumps(report, indent=2, ensure_ascii=False))
        elif report["ok"]:
            self.stdout.write("The loop went round once; every step really happened.")
        if not report["ok"]:
            raise CommandError(f"The loop stopped. {report['failed']}", returncode=1)
