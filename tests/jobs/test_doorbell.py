"""A broker that is away or silent must cost a request next to nothing."""

import socket
import threading
import time
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest
import redis
from django.conf import settings

from jobs import doorbell
from jobs.models import OutboxMessage
from jobs.queue import enqueue
from jobs.sweeper import ring_again
from tests.jobs import work  # noqa: F401 - Registers the kinds.

pytestmark = pytest.mark.django_db


@pytest.fixture
def clean_broker():
    client = redis.Redis.from_url(settings.CELERY_BROKER_URL)
    client.flushdb()
    doorbell.forget_connection()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def broker_at(monkeypatch):
    """Points this process at another broker; Celery reads the variable each time, before its settings."""
    doorbell.forget_connection()
    yield lambda port: monkeypatch.setenv("CELERY_BROKER_URL", f"redis://:secret@127.0.0.1:{port}/0")
    doorbell.forget_connection()


def new_job():
    return enqueue("tests.add", {"a": 1, "b": 1}, label="Add")


def seconds(action) -> float:
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def test_ring_on_commit_carries_the_job_id_alone(clean_broker, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        job = new_job()
    (message,) = clean_broker.lrange("cpu", 0, -1)
    assert str(job.pk).encode() in message
    job.outbox.refresh_from_db()
    assert (job.outbox.published_at is not None, job.outbox.publications) == (True, 1)


def test_refused_connection_costs_one_short_moment(broker_at):
    broker_at(1)
    job = new_job()
    first = seconds(lambda: doorbell.ring([job.pk]))
    second = seconds(lambda: doorbell.ring([job.pk]))
    assert first < 5
    assert second < 1
    assert OutboxMessage.objects.get(job=job).published_at is None


def test_silent_broker_costs_at_most_the_time_limit_and_only_once(broker_at):
    """A server that takes connections and never answers, as behind a firewall that swallows."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        broker_at(server.getsockname()[1])
        job = new_job()
        first = seconds(lambda: doorbell.ring([job.pk]))
        second = seconds(lambda: doorbell.ring([job.pk]))
    assert first < 2 * (doorbell.CONNECT_SECONDS + 2 * doorbell.ANSWER_SECONDS)
    assert second < doorbell.ANSWER_SECONDS / 2


def test_connection_that_a_restarted_broker_closed_costs_no_ring(clean_broker):
    first, second = new_job(), new_job()
    assert doorbell.ring([first.pk]) == 1
    clean_broker.client_kill_filter(_type="normal", skipme=True)
    assert doorbell.ring([second.pk]) == 1
    assert clean_broker.llen("cpu") == 2


def test_broker_that_falls_silent_on_a_kept_connection_is_waited_for_once(clean_broker, monkeypatch):
    job, other = new_job(), new_job()
    with relay_to_broker() as (port, is_muted):
        url = urlsplit(settings.CELERY_BROKER_URL)
        address = url._replace(netloc=f"{url.netloc.rpartition(':')[0]}:{port}")
        monkeypatch.setenv("CELERY_BROKER_URL", address.geturl())
        doorbell.forget_connection()
        assert doorbell.ring([job.pk]) == 1
        is_muted.set()
        first = seconds(lambda: doorbell.ring([other.pk]))
        second = seconds(lambda: doorbell.ring([other.pk]))
        doorbell.forget_connection()
    assert doorbell.ANSWER_SECONDS * 0.9 < first < 2 * doorbell.ANSWER_SECONDS
    assert second < doorbell.ANSWER_SECONDS / 2


@contextmanager
def relay_to_broker():
    """(port, event): a way to the broker on which no answer comes back any more once the event is set."""
    url, is_muted = urlsplit(settings.CELERY_BROKER_URL), threading.Event()

    def pass_on(source, target, mutable):
        with suppress(OSError):
            while data := source.recv(65536):
                if not (mutable and is_muted.is_set()):
                    target.sendall(data)

    def accept(server):
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                broker = socket.create_connection((url.hostname, url.port))
                open_sockets.extend([client, broker])
                threading.Thread(target=pass_on, args=(client, broker, False), daemon=True).start()
                threading.Thread(target=pass_on, args=(broker, client, True), daemon=True).start()

    open_sockets = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1], is_muted
    for one in open_sockets:
        one.close()


def test_sweeper_rings_at_once_what_was_never_rung(clean_broker):
    jobs = [new_job() for _ in range(3)]
    assert ring_again() == 3
    assert clean_broker.llen("cpu") == 3
    assert ring_again() == 0
    assert {message.publications for message in OutboxMessage.objects.filter(job__in=jobs)} == {1}


def test_sweeper_rings_again_only_when_messages_are_missing(clean_broker):
    for _ in range(3):
        new_job()
    ring_again()
    OutboxMessage.objects.update(published_at="2020-01-01T00:00Z")
    assert ring_again() == 0  # All three stand in the queue, behind a busy worker.
    clean_broker.lpop("cpu")
    assert ring_again() == 3
    OutboxMessage.objects.update(published_at="2020-01-01T00:00Z")
    assert ring_again() == 0


def test_nothing_rings_for_what_is_not_due(clean_broker):
    blocker = new_job()
    after = enqueue("tests.add", {"a": 1, "b": 1}, label="After", after=[blocker])
    assert doorbell.ring([after.pk]) == 0
    assert ring_again() == 1
    assert clean_broker.llen("cpu") == 1
