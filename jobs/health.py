"""What load balancers and monitoring ask: is it up, is it ready, how much waits. Public answers carry no detail."""

import logging
from collections.abc import Iterator

from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, F, Min
from django.db.models.functions import Extract, Now
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from accounts.api import TokenAuth
from accounts.models import Role, User
from accounts.policies import SELF_GUARDED, public
from jobs.doorbell import broker_answers
from jobs.models import Job, JobAttempt, JobState, OutboxMessage, Queue, Sweep, Worker
from jobs.workers import LIVE_SECONDS

logger = logging.getLogger(__name__)

_is_migrated = False


@never_cache
@require_safe
@public
def healthz(request: HttpRequest) -> HttpResponse:
    """200 when web and database answer, else 503."""
    return _plain(database_answers())


@never_cache
@require_safe
@public
def readyz(request: HttpRequest) -> HttpResponse:
    """200 when also every migration is applied and the broker answers, else 503."""
    return _plain(database_answers() and is_migrated() and broker_answers())


@never_cache
@require_GET
def metrics(request: HttpRequest) -> HttpResponse:
    """Gauges for Prometheus, for operators and auditors by session or token."""
    user = _caller(request)
    if user is None:
        return HttpResponse("Sign in, or send a token.\n", status=401, content_type="text/plain")
    if not (user.is_superuser or user.has_role(Role.OPERATOR, Role.AUDITOR)):
        return HttpResponse("Metrics are for operators and auditors.\n", status=403, content_type="text/plain")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(JobCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


metrics.access_policy = SELF_GUARDED  # type: ignore[attr-defined]


def database_answers() -> bool:
    """Whether the database runs a statement now."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return True
    except (DatabaseError, InterfaceError) as error:
        logger.warning("The database does not answer: %s", error)
        connection.close()
        return False


def is_migrated() -> bool:
    """Whether the database has every migration of this code; remembered once true, since code does not change under us."""
    global _is_migrated
    if not _is_migrated:
        executor = MigrationExecutor(connection)
        _is_migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _is_migrated


class JobCollector(Collector):
    """Reads the tables at each scrape; nothing is counted in a process, so it does not matter which one answers."""

    def collect(self) -> Iterator[Metric]:
        yield from _job_metrics()
        yield from _worker_metrics()


def _job_metrics() -> Iterator[Metric]:
    jobs = GaugeMetricFamily("atelier_jobs", "Jobs by queue and state.", labels=["queue", "state"])
    counts = {
        (row["queue"], row["state"]): row["n"]
        for row in Job.objects.order_by().values("queue", "state").annotate(n=Count("pk"))
    }
    for queue in Queue.values:
        for state in JobState.values:
            jobs.add_metric([queue, state], counts.get((queue, state), 0))
    yield jobs
    oldest = GaugeMetricFamily(
        "atelier_job_oldest_due_seconds", "How long the oldest due job has waited.", labels=["queue"]
    )
    due = Job.objects.due().order_by().values("queue").annotate(age=Extract(Now() - Min("run_after"), "epoch"))
    ages = {row["queue"]: float(row["age"]) for row in due}
    for queue in Queue.values:
        oldest.add_metric([queue], ages.get(queue, 0.0))
    yield oldest
    yield GaugeMetricFamily(
        "atelier_job_leases_expired", "Leases that ran out and await the reaper.", value=Job.objects.expired().count()
    )
    yield GaugeMetricFamily(
        "atelier_outbox_unpublished",
        "Doorbells not rung yet.",
        value=OutboxMessage.objects.filter(published_at=None).count(),
    )
    attempts = GaugeMetricFamily("atelier_job_attempts", "Attempts by how they ended.", labels=["outcome"])
    for row in JobAttempt.objects.order_by().values("outcome").annotate(n=Count("pk")):
        attempts.add_metric([row["outcome"] or "under_way"], row["n"])
    yield attempts


def _worker_metrics() -> Iterator[Metric]:
    workers = GaugeMetricFamily(
        "atelier_worker_seen_seconds", "Seconds since a worker was seen.", labels=["worker", "queues"]
    )
    memory = GaugeMetricFamily(
        "atelier_worker_memory_bytes", "Resident memory of a worker and its processes.", labels=["worker"]
    )
    live = 0
    for worker in Worker.objects.annotate(age=Extract(Now() - F("seen_at"), "epoch")):
        workers.add_metric([worker.name, worker.queues], float(worker.age))
        memory.add_metric([worker.name], worker.memory_mb * 2**20)
        live += worker.age < LIVE_SECONDS
    yield workers
    yield memory
    yield GaugeMetricFamily("atelier_workers_live", "Workers seen lately.", value=live)
    swept = Sweep.objects.annotate(age=Extract(Now() - F("swept_at"), "epoch")).first()
    if swept is not None:
        yield GaugeMetricFamily("atelier_sweep_age_seconds", "Seconds since the last sweep.", value=float(swept.age))


def _caller(request: HttpRequest) -> User | None:
    if request.user.is_authenticated:
        return request.user
    return TokenAuth()(request)


def _plain(is_well: bool) -> HttpResponse:
    return HttpResponse(
        "ok\n" if is_well else "unavailable\n", status=200 if is_well else 503, content_type="text/plain"
    )
