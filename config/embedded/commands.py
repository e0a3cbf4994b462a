"""`manage.py up`, `demo` and `doctor`: they run before Django is set up, since they say what keeps it from being set up."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from config.embedded.child import PROJECT
from config.embedded.doctor import examine
from config.embedded.problem import Problem
from config.embedded.services import running_services
from config.embedded.up import run_up
from config.embedded.whole import whole_product

BEFORE_DJANGO = {
    "up": "Starts everything on this machine, and stops it on Ctrl-C.",
    "demo": "Like up, and loads the demo workspace.",
    "doctor": "Says what is missing or wrong on this machine.",
}
# What needs web and workers too.
WITH_EVERYTHING = {"demo_loop"}
# What Django does without a database.
WITHOUT_SERVICES = {
    "check",
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "findstatic",
    "help",
    "makemigrations",
    "version",
    "test",
}


def data_folder(argument: str | None = None) -> Path:
    """The data folder: the argument, else DATA_DIR, else .data beside manage.py."""
    return Path(argument or os.environ.get("DATA_DIR", "").strip() or PROJECT / ".data").expanduser().resolve()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that the three commands share."""
    parser.add_argument(
        "--port", type=_port, default=os.environ.get("PORT") or "8000", help="of the web address (PORT, 8000)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--data-dir", default=None, help="where everything is kept (DATA_DIR, .data)")


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; it must be a whole number from 1 to 65535.")
    return int(text)


def run(name: str, *, port: int, host: str, data_dir: str | None) -> int:
    """Runs one of the three commands; returns its exit status."""
    folder = data_folder(data_dir)
    try:
        if name == "doctor":
            return _doctor(folder, host, port)
        after_start = [("load_workspace",)] if name == "demo" else []
        run_up(folder, host=host, port=port, after_start=after_start, say=_say)
    except Problem as problem:
        print(f"\nAtelier did not start. {problem}" if name != "doctor" else str(problem), file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str]) -> int:
    """`up ...`, `demo ...` or `doctor ...`, as given on the command line."""
    parser = argparse.ArgumentParser(prog=f"manage.py {arguments[0]}", description=BEFORE_DJANGO[arguments[0]])
    add_arguments(parser)
    options = parser.parse_args(list(arguments[1:]))
    return run(arguments[0], port=options.port, host=options.host, data_dir=options.data_dir)


@contextmanager
def services_for(arguments: Sequence[str]) -> Iterator[None]:
    """Gives a Django command what it runs on: that of the environment, that which runs, or our own until it ends."""
    name = arguments[0] if arguments else "help"
    if name in WITHOUT_SERVICES or {"-h", "--help", "--version"} & set(arguments):
        yield
    elif name in WITH_EVERYTHING and not any(argument.startswith("--web-url") for argument in arguments):
        with whole_product(data_folder()) as found, _environment(found["database_url"], found["broker_url"]):
            yield
    elif os.environ.get("DATABASE_URL"):
        yield
    else:
        with running_services(data_folder()) as (database_url, broker_url), _environment(database_url, broker_url):
            yield


@contextmanager
def _environment(database_url: str, broker_url: str) -> Iterator[None]:
    os.environ["DATABASE_URL"] = database_url
    os.environ.setdefault("CELERY_BROKER_URL", broker_url)
    yield


def _doctor(data_dir: Path, host: str, port: int) -> int:
    wrong = 0
    for finding in examine(data_dir, host, port):
        wrong += not finding.ok
        print(f"{'ok     ' if finding.ok else 'problem'}  {finding.name}: {finding.text}", flush=True)
    if wrong:
        print(f"{wrong} {'thing needs' if wrong == 1 else 'things need'} your attention.")
    return 1 if wrong else 0


def _say(text: str) -> None:
    # Whoever read our output may be gone, as in `make demo | head`: that is no reason to stop.
    with suppress(OSError):
        print(text, flush=True)
