"""Durable jobs. Postgres is the truth; a broker message carries a job's id and nothing else.

                    cancel                         cancel, seen at a heartbeat
       +--------------------------> CANCELLED <----------------------+
       |                                                             |
    QUEUED --claim--> RUNNING --finish--> SUCCEEDED                  |
       ^                 |  |                                        |
       |                 |  +--fails for good, or the last attempt--> FAILED
       +-- lease expired or given back, or a failure worth another attempt

    QUEUED or RUNNING --pause (the latter at its next step)--> PAUSED --resume--> QUEUED, or --cancel--> CANCELLED

A claim is one conditional UPDATE that draws a new fencing token; every later write of the attempt carries it, so that an
attempt which lost its lease writes nothing. A job revoked before its start never runs; a worker killed in the middle
leaves a lease that runs out, and the reaper queues the job again until its attempts are used up. A job with blockers is
due when all of them have succeeded; when one fails or is cancelled, it fails without having run. Attempts that got
further than any before them do not count against the cap: it is there for poison, not for long work on poor machines.
A running job that is asked to give way to a more urgent one ends its attempt as for a pause, and is queued again at once.
A paused job is neither open nor over: nothing runs it, what waits for it goes on waiting, and an attempt that ends for
another reason after the pause was asked for leaves it paused all the same.
"""

import uuid
from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.urls import reverse

from accounts.models import Role

if TYPE_CHECKING:
    from accounts.models import User


class JobState(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    PAUSED = "paused", "Paused"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


OPEN_STATES = (JobState.QUEUED, JobState.RUNNING)
FINAL_STATES = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Queue(models.TextChoices):
    GENERATE = "generate", "Generate"
    TRAIN = "train", "Train"
    CPU = "cpu", "CPU"
    CONTROL = "control", "Control"


class JobQuerySet(models.QuerySet["Job"]):
    def open(self) -> "JobQuerySet":
        return self.filter(state__in=OPEN_STATES)

    def visible_to(self, user: "User") -> "JobQuerySet":
        """All of them for the team; for others those that they asked for."""
        if user.is_superuser or user.has_role(Role.CURATOR, Role.OPERATOR, Role.AUDITOR):
            return self
        return self.filter(created_by=user)

    def due(self) -> "JobQuerySet":
        """Queued, past the time before which they must not run, and not waiting for another job."""
        waiting = Job.objects.filter(dependents=models.OuterRef("pk")).exclude(state=JobState.SUCCEEDED)
        return self.filter(~models.Exists(waiting), state=JobState.QUEUED, run_after__lte=Now())

    def first_in_line(self, job_id: uuid.UUID) -> uuid.UUID:
        """The job itself, or the due one of its queue that goes before it: a more urgent one, or among equals an older one, such as
        one that gave way."""
        mine = Job.objects.filter(pk=job_id).values_list("queue", "priority", "created_at").first()
        if mine is None:
            return job_id
        queue, priority, created_at = mine
        sooner = Q(priority__gt=priority) | Q(priority=priority, created_at__lt=created_at)
        before = self.due().filter(sooner, queue=queue).order_by("-priority", "created_at", "id")
        return before.values_list("pk", flat=True).first() or job_id

    def expired(self) -> "JobQuerySet":
        """Running under a lease that has run out."""
        return self.filter(state=JobState.RUNNING, lease_until__lt=Now())


class Job(models.Model):
    """One piece of work that is done once, whatever dies meanwhile."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=80, help_text="Which handler does it, e.g. generation.draw_batch.")
    queue = models.CharField(max_length=16, choices=Queue.choices)
    label = models.CharField(max_length=200, blank=True, help_text="What it does, for a person.")
    url = models.CharField(max_length=200, blank=True, help_text="The page of what it works on.")
    schema = models.PositiveSmallIntegerField(default=1, help_text="Version of the payload's form.")
    payload = models.JSONField(default=dict)
    unique_key = models.CharField(
        max_length=200, null=True, blank=True, unique=True, help_text="At most one job ever has this key."
    )
    priority = models.SmallIntegerField(default=0, help_text="Higher goes first where a choice exists.")
    state = models.CharField(max_length=16, choices=JobState.choices, default=JobState.QUEUED)
    attempt = models.PositiveSmallIntegerField(default=0, help_text="Attempts claimed so far.")
    max_attempts = models.PositiveSmallIntegerField(default=5)
    token = models.UUIDField(null=True, blank=True, help_text="Fencing token of the running attempt.")
    lease_until = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=120, blank=True)
    code_version = models.CharField(max_length=64, blank=True)
    run_after = models.DateTimeField(db_default=Now())
    blockers = models.ManyToManyField(
        "self", symmetrical=False, related_name="dependents", blank=True, help_text="These must succeed first."
    )
    progress_done = models.PositiveIntegerField(default=0)
    progress_total = models.PositiveIntegerField(default=0)
    progress_note = models.CharField(max_length=200, blank=True)
    progress_mark = models.PositiveIntegerField(default=0, help_text="The furthest that an ended attempt came.")
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    pause_requested_at = models.DateTimeField(null=True, blank=True)
    pause_requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    yields_to = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="The more urgent job for which the running attempt was asked to stop.",
    )
    result = models.JSONField(default=dict)
    error = models.TextField(blank=True, help_text="A sentence for a person.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="jobs"
    )
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar = JobQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["queue", "run_after"], name="job_due", condition=Q(state="queued")),
            models.Index(fields=["lease_until"], name="job_leases", condition=Q(state="running")),
            models.Index(fields=["-created_at", "-id"], name="job_newest"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="running", token__isnull=False, lease_until__isnull=False)
                | (~Q(state="running") & Q(token__isnull=True, lease_until__isnull=True)),
                name="job_lease_iff_running",
            ),
            models.CheckConstraint(condition=Q(state__in=JobState.values), name="job_state_is_known"),
            models.CheckConstraint(condition=Q(attempt__lte=models.F("max_attempts")), name="job_attempts_capped"),
            models.CheckConstraint(
                condition=Q(state__in=["succeeded", "failed", "cancelled"], finished_at__isnull=False)
                | (Q(state__in=["queued", "running", "paused"]) & Q(finished_at__isnull=True)),
                name="job_finished_iff_final",
            ),
        ]

    def __str__(self) -> str:
        return self.label or f"{self.kind} {self.id}"

    def get_absolute_url(self) -> str:
        return reverse("job", args=[self.pk])

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    @property
    def is_cancelling(self) -> bool:
        return self.is_open and self.cancel_requested_at is not None

    @property
    def is_yielding(self) -> bool:
        wish = self.yields_to if self.state == JobState.RUNNING and not self.is_pausing else None
        return wish is not None and wish.state == JobState.QUEUED

    @property
    def is_pausing(self) -> bool:
        return self.state == JobState.RUNNING and self.pause_requested_at is not None and not self.is_cancelling


class AttemptOutcome(models.TextChoices):
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"
    LOST = "lost", "Lost"  # The worker died or fell silent; the lease ran out.
    RELEASED = "released", "Released"  # The worker was told to stop and gave the job back.
    PAUSED = "paused", "Paused"


class JobAttempt(models.Model):
    """One worker's try at a job. An attempt without an outcome is under way."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveSmallIntegerField()
    token = models.UUIDField(unique=True)
    worker = models.CharField(max_length=120)
    code_version = models.CharField(max_length=64, blank=True)
    started_at = models.DateTimeField(db_default=Now())
    heartbeat_at = models.DateTimeField(db_default=Now())
    host = models.CharField(max_length=120, blank=True, help_text="Boot and pid namespace in which the pid counts.")
    pid = models.PositiveIntegerField(default=0)
    pid_started = models.PositiveBigIntegerField(default=0)
    progress_from = models.PositiveIntegerField(null=True, blank=True, help_text="What was done at its first report.")
    progress_from_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=16, choices=AttemptOutcome.choices, blank=True)
    error = models.TextField(blank=True, help_text="The traceback, for operators.")

    class Meta:
        ordering = ["job", "number"]
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="attempt_number_once"),
            models.UniqueConstraint(fields=["job"], condition=Q(outcome=""), name="attempt_one_under_way"),
            models.CheckConstraint(
                condition=Q(outcome="", ended_at__isnull=True) | (~Q(outcome="") & Q(ended_at__isnull=False)),
                name="attempt_ended_iff_outcome",
            ),
        ]

    def __str__(self) -> str:
        return f"Attempt {self.number} of {self.job_id}"


class JobEvent(models.Model):
    """What happened to a job, in order; rows are only added."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(db_default=Now())
    # The layer's own: queued, claimed, succeeded, failed, will_retry, lost, released, blocker_failed, cancel_requested,
    # cancelled, retried, pause_requested, paused, resumed. Handlers add theirs.
    kind = models.CharField(max_length=32)
    attempt = models.PositiveSmallIntegerField(default=0)
    detail = models.JSONField(default=dict)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["job", "id"], name="job_event_order")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.job_id}"


class OutboxMessage(models.Model):
    """A doorbell still to be rung for a queued job. It is removed by the claim, not by the publication, so that a wiped
    broker is healed by ringing again."""

    job = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="outbox")
    created_at = models.DateTimeField(db_default=Now())
    published_at = models.DateTimeField(null=True, blank=True)
    publications = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"Doorbell of {self.job_id}"


class Worker(models.Model):
    """A worker process that was seen lately: what it serves and on what device."""

    name = models.CharField(max_length=120, primary_key=True)
    queues = models.CharField(max_length=120)
    device = models.CharField(max_length=120, blank=True)
    device_memory_mb = models.PositiveIntegerField(
        default=0, help_text="Memory of the smallest of its GPUs, or of its machine; 0 where it does not say."
    )
    memory_mb = models.PositiveIntegerField(default=0, help_text="Resident memory of the worker and its processes.")
    code_version = models.CharField(max_length=64, blank=True)
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())
    host = models.CharField(max_length=120, blank=True)
    pid = models.PositiveIntegerField(default=0)
    pid_started = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Sweep(models.Model):
    """When the last sweep was, in one row, so that workers notice that nobody sweeps any more."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    swept_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="sweep_has_one_row")]

    def __str__(self) -> str:
        return f"Last sweep at {self.swept_at}"
