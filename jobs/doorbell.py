"""Rings the broker's doorbell for jobs that are due. A broker that is down costs a caller a moment, never the job.

What could not be rung stays in the outbox, and the sweeper rings again.
"""

import logging
import os
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from celery import current_app
from django.db import DatabaseError
from django.db.models import F
from django.db.models.functions import Now
from kombu.exceptions import KombuError

from jobs.models import Job, OutboxMessage

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
# After a failure this process leaves the ringing to the sweeper for a while, so that requests do not wait one by one.
PAUSE_SECONDS = 5.0
TRANSPORT_OPTIONS = {
    "max_retries": 0,
    "socket_connect_timeout": CONNECT_SECONDS,
    "socket_timeout": ANSWER_SECONDS,
    "retry_on_timeout": False,
}

_lock = threading.Lock()
_connection: Any = None
_connection_key: tuple[int, str] | None = None
_silent_until = 0.0


def ring(job_ids: Collection[UUID], *, patient: bool = False) -> int:
    """Publishes a message for each of the jobs that is due, and notes it in the outbox. Never raises.

    Returns how many were published. A `patient` caller (the sweeper) tries although a ring has just failed.
    """
    global _silent_until
    if not job_ids or (not patient and time.monotonic() < _silent_until):
        return 0
    try:
        due = list(
            Job.objects.due().filter(pk__in=job_ids).order_by("-priority", "created_at").values_list("pk", "queue")
        )
    except DatabaseError:
        logger.warning("Could not look up which jobs to ring for; the sweeper will.")
        return 0
    if not due or not _lock.acquire(timeout=CONNECT_SECONDS + ANSWER_SECONDS):
        return 0
    rung: list[UUID] = []
    try:
        is_kept = _connection is not None
        try:
            _publish_all(due, rung)
        except connection_errors() as error:
            if not is_kept or _timed_out(error):
                raise
            # A broker that was restarted since has closed the connection that we kept; it may well take a new one.
            _close_connection()
            _publish_all(due[len(rung) :], rung)
    except Exception as error:
        # Whatever a client library says of a broker that is away, the caller's request has nothing to do with it.
        _silent_until = time.monotonic() + PAUSE_SECONDS
        _close_connection()
        logger.warning("The broker does not answer (%s); jobs wait in the outbox.", type(error).__name__)
    finally:
        _lock.release()
    _note(rung)
    return len(rung)


def waiting_messages(queue: str) -> int | None:
    """How many messages wait in the broker's queue; None when that cannot be said."""
    with _lock:
        try:
            connection = _open_connection()
            return int(connection.default_channel.queue_declare(queue=queue, passive=True).message_count)
        except connection_errors() as error:
            if "NOT_FOUND" in str(error):  # AMQP brokers and kombu's virtual ones alike: nothing was ever published.
                return 0
            _close_connection()
            return None


def broker_answers() -> bool:
    """Whether the broker takes a connection now."""
    with _lock:
        try:
            connection = _open_connection()
            # Not channel(), which tries again after two seconds whatever the options say.
            client = getattr(connection.default_channel, "client", None)
            if client is not None:
                client.ping()
            return True
        except Exception:
            # As in ring(): each client library has errors of its own, and all say the same here.
            _close_connection()
            return False


def forget_connection() -> None:
    """Lets go of the connection and of the memory of failures, when the broker has become another one."""
    global _silent_until
    with _lock:
        _close_connection()
        _silent_until = 0.0


def connection_errors() -> tuple[type[BaseException], ...]:
    """What the broker's client raises when it is away or does not know a queue."""
    transport = current_app.connection_for_write().transport
    return (*transport.connection_errors, *transport.channel_errors, KombuError, OSError)


def _timed_out(error: BaseException) -> bool:
    """Whether a broker was silent for its time, by the name that each client library gives to that."""
    return any("Timeout" in type(one).__name__ for one in (error, error.__cause__, error.__context__))


def _publish_all(due: Sequence[tuple[UUID, str]], rung: list[UUID]) -> None:
    """Publishes in order; `rung` says how far it came."""
    connection = _open_connection()
    for job_id, queue in due:
        current_app.send_task("jobs.run", args=[str(job_id)], queue=queue, connection=connection, retry=False)
        rung.append(job_id)


def _open_connection() -> Any:
    """The process's one connection, made again after a fork or a failure."""
    global _connection, _connection_key
    key = (os.getpid(), str(current_app.conf.broker_url))
    if _connection is None or _connection_key != key:
        options = {**(current_app.conf.broker_transport_options or {}), **TRANSPORT_OPTIONS}
        _connection = current_app.connection_for_write(transport_options=options, connect_timeout=CONNECT_SECONDS)
        _connection_key = key
    return _connection


def _close_connection() -> None:
    global _connection
    connection, _connection = _connection, None
    if connection is not None:
        try:
            connection.release()
        except Exception:
            logger.debug("A broken broker connection did not close in order.", exc_info=True)


def _note(rung: list[UUID]) -> None:
    try:
        OutboxMessage.objects.filter(job__in=rung).update(published_at=Now(), publications=F("publications") + 1)
    except DatabaseError:
        logger.warning("%d rings could not be noted; they may be rung twice, which does no harm.", len(rung))
