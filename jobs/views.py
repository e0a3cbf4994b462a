"""What runs, what waits, what went wrong, and the buttons to cancel and to try again."""

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from accounts.models import Role, User
from accounts.policies import policy
from jobs.history import describe_history
from jobs.models import Job, JobQuerySet, JobState, Queue, Worker
from jobs.progress import Progress, describe_progress, describe_span
from jobs.queue import request_cancel, retry
from jobs.workers import live_workers

PAGE_SIZE = 50


@dataclass(frozen=True)
class WorkerRow:
    """A worker and what it does now."""

    worker: Worker
    is_live: bool
    job: Job | None
    progress: Progress | None


@require_GET
@policy(read=[Role.CURATOR, Role.OPERATOR])
def jobs(request: HttpRequest) -> HttpResponse:
    """Queues and workers with what they do now, and all jobs, newest first."""
    assert isinstance(request.user, User)
    visible = Job.objects.visible_to(request.user)
    filters = _filters(request)
    page = _page(visible.filter(**filters), request.GET.get("before", ""), request.GET.get("after", ""))
    context = {
        **page,
        "filters": filters,
        "states": _chips(JobState.choices, "state", filters),
        "kinds": _chips([(kind, kind) for kind in _kinds(visible)], "kind", filters),
        "queues": _queues(visible),
        "workers": _workers(visible),
        "is_moving": visible.open().exists(),
        "here": request.get_full_path(),
    }
    return render(request, "jobs/_board.html" if request.htmx else "jobs/jobs.html", context)  # type: ignore[attr-defined]


@require_GET
@policy(read=[Role.CURATOR, Role.OPERATOR])
def job(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One job: progress, history, attempts."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Job.objects.visible_to(request.user).prefetch_related("attempts", "events"), pk=pk)
    is_operator = request.user.is_superuser or request.user.has_role(Role.OPERATOR)
    attempts = [
        (attempt, describe_span((attempt.ended_at or attempt.heartbeat_at) - attempt.started_at))
        for attempt in found.attempts.all()
    ]
    context = {
        "job": found,
        "progress": describe_progress(found),
        "history": describe_history(found),
        "attempts": attempts[::-1],
        "blockers": found.blockers.all(),
        "dependents": found.dependents.all(),
        "may_cancel": (found.is_open or found.state == JobState.PAUSED)
        and not found.is_cancelling
        and _may_cancel(request.user, found),
        "may_retry": found.state in (JobState.FAILED, JobState.CANCELLED, JobState.PAUSED) and is_operator,
        "shows_details": is_operator or request.user.has_role(Role.AUDITOR),
    }
    if not request.htmx:  # type: ignore[attr-defined]
        return render(request, "jobs/job.html", context)
    part = render(request, "jobs/_job.html", context)
    if not found.is_open:
        # The buttons in the page's head have changed with the state: the polling page loads itself anew, once.
        part["HX-Refresh"] = "true"
    return part


@require_POST
@policy(write=[Role.CURATOR, Role.OPERATOR])
def job_cancel(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Stops a job: operators any, others those that they asked for."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Job.objects.visible_to(request.user), pk=pk)
    if not _may_cancel(request.user, found):
        raise PermissionDenied("Only operators cancel the jobs of others.")
    if not request_cancel(found, by=request.user):
        messages.warning(request, f"“{found}” is over already, or was asked to stop before.")
    elif found.is_open:
        messages.success(request, f"“{found}” was asked to stop; it does so within seconds.")
    else:
        messages.success(request, f"“{found}” is cancelled.")
    return redirect(found)


@require_POST
@policy(write=[Role.OPERATOR])
def job_retry(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Queues a failed, cancelled or paused job again."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Job.objects.visible_to(request.user), pk=pk)
    if retry(found, by=request.user):
        messages.success(request, f"“{found}” is queued again.")
    elif found.is_open or found.state == JobState.SUCCEEDED:
        messages.warning(request, f"“{found}” needs no other try: it is {found.get_state_display().lower()}.")
    else:
        messages.warning(request, f"“{found}” waits for a job that did not succeed. Try that one again first.")
    return redirect(found)


def _may_cancel(user: User, found: Job) -> bool:
    return user.is_superuser or user.has_role(Role.OPERATOR) or (found.created_by_id == user.pk)


def _filters(request: HttpRequest) -> dict[str, str]:
    """Column -> wanted value; a value that no row has finds nothing, one that Postgres cannot hold is no filter."""
    asked = {name: request.GET.get(name, "") for name in ("state", "kind", "queue")}
    return {name: value for name, value in asked.items() if value and "\x00" not in value}


def _page(found: JobQuerySet, before: str, after: str) -> dict[str, object]:
    """A page of jobs by keyset: those older than the cursor `before`, or newer than `after`."""
    rows = found.select_related("created_by").prefetch_related("attempts")
    older, newer = _cursor(before), _cursor(after)
    if newer:
        at, key = newer
        late = rows.filter(Q(created_at__gt=at) | Q(created_at=at, pk__gt=key)).order_by("created_at", "pk")
        page = list(late[: PAGE_SIZE + 1])
        has_newer, page = len(page) > PAGE_SIZE, page[:PAGE_SIZE][::-1]
        has_older = True
    else:
        if older:
            at, key = older
            rows = rows.filter(Q(created_at__lt=at) | Q(created_at=at, pk__lt=key))
        page = list(rows.order_by("-created_at", "-pk")[: PAGE_SIZE + 1])
        has_older, page = len(page) > PAGE_SIZE, page[:PAGE_SIZE]
        has_newer = bool(older)
    return {
        "jobs": [(row, describe_progress(row)) for row in page],
        "older": _cursor_text(page[-1]) if page and has_older else "",
        "newer": _cursor_text(page[0]) if page and has_newer else "",
    }


def _cursor(text: str) -> tuple[datetime, UUID] | None:
    """What `_cursor_text` wrote; None for anything else."""
    moment, _, key = text.partition("_")
    try:
        at = datetime.fromisoformat(moment)
        return (at, UUID(key)) if at.tzinfo else None
    except ValueError:
        return None


def _cursor_text(row: Job) -> str:
    return f"{row.created_at.isoformat()}_{row.pk}"


def _chips(choices: list[tuple[str, str]], name: str, filters: dict[str, str]) -> list[dict[str, object]]:
    """Links that set one filter and keep the others; the first takes it away."""
    others = {key: value for key, value in filters.items() if key != name}
    chips: list[dict[str, object]] = [{"label": "All", "query": urlencode(others), "is_on": name not in filters}]
    for value, label in choices:
        query = urlencode({**others, name: value})
        chips.append({"label": label, "query": query, "is_on": filters.get(name) == value})
    return chips


def _kinds(visible: JobQuerySet) -> list[str]:
    return list(visible.order_by("kind").values_list("kind", flat=True).distinct())


def _queues(visible: JobQuerySet) -> list[dict[str, object]]:
    """Each queue that people meet, with what runs and waits in it."""
    counts = {
        row["queue"]: row
        for row in visible.open()
        .order_by()
        .values("queue")
        .annotate(running=Count("pk", Q(state=JobState.RUNNING)), waiting=Count("pk", Q(state=JobState.QUEUED)))
    }
    served = {name for worker in live_workers() for name in worker.queues.split(", ")}
    return [
        {"value": queue.value, "label": queue.label, "is_served": queue.value in served, **counts.get(queue.value, {})}
        for queue in Queue
        if queue is not Queue.CONTROL
    ]


def _workers(visible: JobQuerySet) -> list[WorkerRow]:
    """Workers with the job that each does now, and whether they were seen lately."""
    running = {job.worker: job for job in visible.filter(state=JobState.RUNNING).prefetch_related("attempts")}
    live = set(live_workers().values_list("name", flat=True))
    rows = []
    for worker in Worker.objects.all():
        job = running.get(worker.name)
        rows.append(WorkerRow(worker, worker.name in live, job, describe_progress(job) if job else None))
    return rows
