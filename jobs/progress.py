"""How far a job is, how fast it goes and how long it will take, in words for `_progress.html`."""

from dataclasses import dataclass
from datetime import timedelta

from jobs.models import Job, JobAttempt

# Rates from fewer seconds or steps would jump about.
SETTLED_SECONDS = 2.0


@dataclass(frozen=True)
class Progress:
    """`rate` and `left` are empty while they cannot be told. `total` is 0 where it is unknown."""

    done: int
    total: int
    rate: str = ""
    left: str = ""
    note: str = ""

    @property
    def percent(self) -> int:
        return min(100, 100 * self.done // self.total) if self.total else 0


def describe_progress(job: Job, *, unit: str = "", attempt: JobAttempt | None = None) -> Progress:
    """The job's progress; the rate is that of its running attempt since its first report, in `unit`s. By the database's
    clock: from the first report to the last heartbeat."""
    plain = Progress(job.progress_done, job.progress_total, note=job.progress_note)
    attempt = attempt or running_attempt(job)
    if attempt is None or attempt.progress_from is None or attempt.progress_from_at is None:
        return plain
    seconds = (attempt.heartbeat_at - attempt.progress_from_at).total_seconds()
    done = job.progress_done - attempt.progress_from
    if seconds < SETTLED_SECONDS or done <= 0:
        return plain
    pace = done / seconds
    remaining = max(0, job.progress_total - job.progress_done)
    left = describe_seconds(remaining / pace) if remaining else ""
    return Progress(job.progress_done, job.progress_total, _describe_pace(pace, unit), left, job.progress_note)


def running_attempt(job: Job) -> JobAttempt | None:
    """The attempt under way; without a query where `attempts` is prefetched."""
    if not job.is_open:
        return None
    return next((attempt for attempt in job.attempts.all() if not attempt.outcome), None)


def describe_seconds(seconds: float) -> str:
    """`about 40 s`, `about 3 min`, `about 2 h`: rounded as an estimate should be."""
    if seconds < 90:
        return f"about {max(1, round(seconds)) if seconds < 10 else round(seconds / 5) * 5} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def describe_span(span: timedelta) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`: how long something took."""
    seconds = span.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _describe_pace(pace: float, unit: str) -> str:
    unit = f"{unit} " if unit else ""
    if pace >= 0.5:
        return f"{pace:.1f} {unit}a second".replace("  ", " ")
    return f"{pace * 60:.1f} {unit}a minute"
