"""What a browser keeps of the rating screen for when there is no connection: its static files, under one version for all.

Modules import each other by their plain names, while pages link to names with a hash. A page of one version must not get
modules of another, so the worker takes all files at once, by the names with a hash, and says of which version they are.
"""

import hashlib
import json
from functools import lru_cache

from django.conf import settings
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.core.files.storage import storages
from django.template.loader import render_to_string

SOURCES = settings.BASE_DIR / "static"
MODULES = "js/rate"
WORKER = f"{MODULES}/worker.js"
# What pages of the rating screen link to beside its modules.
LINKED = (
    "css/reset.css", "css/tokens.css", "css/base.css", "css/layout.css", "css/controls.css", "css/components.css", "css/images.css",
    "css/rate.css", "css/rate-grid.css", "icons/favicon.svg", "js/app.js", "js/theme.js", "js/unsent.js",
    "vendor/htmx/htmx.min.js", "vendor/lucide/sprite.svg",
)  # fmt: skip


def screen_files() -> list[tuple[str, str]]:
    """The address and the plain address, without a hash, of every static file of the rating screen."""
    return _files(storages["staticfiles"])


def screen_version() -> str:
    """Says which files these are: other ones have another version."""
    return _version(storages["staticfiles"], settings.CODE_VERSION)


def worker_script() -> str:
    """The service worker with what it has to know of this version."""
    known = {
        "FILES": screen_files(),
        "VERSION": screen_version(),
        "NOTICE": render_to_string("rate/no_connection.html"),
    }
    lines = [f"const {name} = {json.dumps(value)};\n" for name, value in known.items()]
    return "".join(lines) + (SOURCES / WORKER).read_text()


# Their storage is new where its settings change.
@lru_cache
def _files(storage: StaticFilesStorage) -> list[tuple[str, str]]:
    modules = sorted(f"{MODULES}/{path.name}" for path in (SOURCES / MODULES).glob("*.js"))
    return [(storage.url(name), f"{settings.STATIC_URL}{name}") for name in (*LINKED, *modules)]


@lru_cache
def _version(storage: StaticFilesStorage, code: str) -> str:
    said = json.dumps([code, _files(storage)])
    return hashlib.sha256(said.encode()).hexdigest()[:16]
