"""A real Chromium against a real server, signed in by session."""

import threading
import time
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
def chromium() -> Iterator[Browser]:
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
        context = chromium.new_context(base_url=live_server.url, **options)
        cookie = client.cookies[settings.SESSION_COOKIE_NAME]
        context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": live_server.url}])
        return context

    yield open_context
    for context in chromium.contexts:
        context.close()
    # What is still being answered would hold tables that the end of the test empties.
    under_way.wait()


class UnderWay:
    """How many requests the server answers just now; each has closed its connection to the database when it is done."""

    def __init__(self) -> None:
        self._count, self._changed = 0, threading.Condition()

    def started(self, **kwargs: object) -> None:
        self._add(1)

    def finished(self, **kwargs: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            # Django's own receiver may come after this one: its test client takes it off and puts it back.
            close_old_connections()
        self._add(-1)

    def _add(self, change: int) -> None:
        with self._changed:
            self._count += change
            self._changed.notify_all()

    def wait(self, seconds: float = 30) -> None:
        """Return once none is. The server takes what came before the browser closed within the moment that follows."""
        time.sleep(0.05)
        with self._changed:
            assert self._changed.wait_for(lambda: self._count == 0, seconds)


@pytest.fixture(scope="session")
def under_way() -> Iterator[UnderWay]:
    counted = UnderWay()
    request_started.connect(counted.started)
    request_finished.connect(counted.finished)
    yield counted
    request_started.disconnect(counted.started)
    request_finished.disconnect(counted.finished)
