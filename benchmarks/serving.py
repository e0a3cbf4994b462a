"""Our own web server and its database for benchmarks that talk to it, and a connection that talks."""

import http.client
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Web:
    """One kept connection to a web server; a request that fails opens it anew."""

    def __init__(self, address: str, headers: dict[str, str], seconds: float = 300) -> None:
        self.address, self.headers, self.seconds = urlsplit(address), headers, seconds
        self.connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """The answer's body. Raises ValueError unless it is a success, OSError or HTTPException where there is none."""
        if self.connection is None:
            assert self.address.hostname
            self.connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=self.seconds)
        try:
            sent = None if body is None else json.dumps(body)
            self.connection.request(method, path, sent, {"Content-Type": "application/json", **self.headers})
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection = None
            raise
        if not 200 <= response.status < 300:
            raise ValueError(f"{method} {path.partition('?')[0]} answered {response.status}: {content[:120]!r}")
        return content


def session_of(person: Any) -> str:
    """The key of a new session in which the person is signed in."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore

    store = SessionStore()
    store[SESSION_KEY] = str(person.pk)
    store[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    store[HASH_SESSION_KEY] = person.get_session_auth_hash()
    store.save()
    assert store.session_key
    return store.session_key


@contextmanager
def served(folder: Path | None) -> Iterator[tuple[str, list[int]]]:
    """Our own web server until the block ends, with an empty database or the one that is kept in this folder: its address, and
    the processes that serve (web and Postgres). Django is set up here, too."""
    from config.embedded import processes
    from config.embedded.child import Child
    from config.embedded.folder import hold_lock, prepare_folder
    from config.embedded.ports import choose_port
    from config.embedded.services import start_services

    with ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atelier-bench-")))
        prepare_folder(folder)
        stack.enter_context(hold_lock(folder))
        services = start_services(folder)
        stack.callback(services.stop)
        os.environ |= {
            "DATA_DIR": str(folder),
            "DATABASE_URL": services.database_url,
            "CELERY_BROKER_URL": services.broker_url,
            "DJANGO_SETTINGS_MODULE": "config.settings",
        }
        started = time.perf_counter()
        for command in (("migrate", "--noinput", "--verbosity=0"), ("collectstatic", "--noinput", "--verbosity=0")):
            _run(Child(processes.manage(command[0], *command), folder))
        print(f"Ready after {time.perf_counter() - started:.1f} s.", file=sys.stderr, flush=True)
        port = choose_port(folder, "web")
        # The scheduler and its worker run as well, since they do what keeps the pages quick.
        others = [program for program in processes.workers(folder) if program.name in ("control", "scheduler")]
        serving = [child.pid for child in services.children if child.program.name == "postgres"]
        for program in (processes.web("127.0.0.1", port), *others):
            child = Child(program, folder)
            child.start()
            stack.callback(child.stop)
            child.wait_ready()
            if program.name == "web":
                serving.append(child.pid)
        import django

        django.setup()
        yield f"http://127.0.0.1:{port}", [pid for pid in serving if pid]


def _run(child: Any) -> None:
    child.start()
    while child.is_alive():
        time.sleep(0.05)
    if child.process.returncode:
        sys.exit(f"{child.program.name} failed:\n{child.log_tail()}")
