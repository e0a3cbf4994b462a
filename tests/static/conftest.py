"""A real Chromium against a real server, signed in by session."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, expect

from accounts.models import User
from tests.chromium import open_chromium

# Patience for a machine that does other things as well; the default is 5 s.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="session", autouse=True)
def _static_root() -> None:
    # The live server starts before any test's settings; WhiteNoise warns where the folder of collected files is missing.
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture(scope="module")
def chromium(django_db_setup: None) -> Iterator[Browser]:
    # Set up while the browser's loop runs, the database would have a connection that its end does not know of.
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def sign_in(chromium, live_server, under_way, monkeypatch) -> Iterator[Callable[..., BrowserContext]]:
    """sign_in(user, **context options) -> a browser context that is signed in as that person."""
    # A server thread that keeps its connection would keep the test database from being dropped.
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)

    def open_context(user: User, **options) -> BrowserContext:
        client = Client()
        client.force_login(user)
        context = chromium.new_context(**{"base_url": live_server.url} | options)
        cookie = client.cookies[settings.SESSION_COOKIE_NAME]
        context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": live_server.url}])
        return context

    yield open_context
    for context in chromium.contexts:
        context.close()
    # What is still being answered would hold tables that the end of the test empties.
    under_way.wait()


class UnderWay:
    """The requests that the server answers just now; each has closed its connection to the database when it is done."""

    def __init__(self) -> None:
        # A thread answers one request at a time; a thread that ended answers none, however it ended.
        self._asked: dict[threading.Thread, str] = {}
        self._changed = threading.Condition()

    def started(self, environ: dict[str, object] | None = None, **kwargs: object) -> None:
        asked = environ or {}
        with self._changed:
            self._asked[threading.current_thread()] = f"{asked.get('REQUEST_METHOD')} {asked.get('PATH_INFO')}"

    def finished(self, **kwargs: object) -> None:
        try:
            if threading.current_thread() is not threading.main_thread():
                # Django's own receiver may come after this one: its test client takes it off and puts it back.
                close_old_connections()
        finally:
            with self._changed:
                self._asked.pop(threading.current_thread(), None)
                self._changed.notify_all()

    def wait(self, seconds: float = 60) -> None:
        """Return once none is. The server takes what came before the browser closed within the moment that follows."""
        time.sleep(0.05)
        with self._changed:
            end = time.monotonic() + seconds
            while self._unanswered() and time.monotonic() < end:
                self._changed.wait(1)
            assert not self._unanswered(), self._tell()

    def _unanswered(self) -> dict[threading.Thread, str]:
        me = threading.current_thread()
        return {thread: asked for thread, asked in self._asked.items() if thread is not me and thread.is_alive()}

    def _tell(self) -> str:
        """What is not answered, and where in the code each is."""
        frames = sys._current_frames()
        told = []
        for thread, asked in self._unanswered().items():
            frame = frames.get(thread.ident or 0)
            told.append(f"{asked}\n{''.join(traceback.format_stack(frame)) if frame else 'has ended'}")
        return "\n".join(["", *told])


@pytest.fixture(scope="session")
def under_way() -> Iterator[UnderWay]:
    counted = UnderWay()
    request_started.connect(counted.started)
    request_finished.connect(counted.finished)
    yield counted
    request_started.disconnect(counted.started)
    request_finished.disconnect(counted.finished)
