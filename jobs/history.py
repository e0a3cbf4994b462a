"""A job's events as sentences, with the colour that each has in the timeline."""

from dataclasses import dataclass
from datetime import datetime

from jobs.models import Job, JobEvent

# kind -> (tone, sentence); the names in braces come from the event's detail.
SENTENCES: dict[str, tuple[str, str]] = {
    "queued": ("idle", "Queued{by}."),
    "claimed": ("run", "Attempt {attempt} was begun by {worker}."),
    "succeeded": ("ok", "Done."),
    "failed": ("bad", "Failed: {error}"),
    "will_retry": ("warn", "Attempt {attempt} failed; another one follows{wait}."),
    "lost": ("warn", "The worker of attempt {attempt} died or fell silent; another attempt follows{wait}."),
    "released": ("idle", "The worker was told to stop and gave the job back."),
    "blocker_failed": ("bad", "Failed, because a job that it waited for did not succeed."),
    "cancel_requested": ("warn", "Asked to stop{by}."),
    "cancelled": ("warn", "Cancelled{by}."),
    "retried": ("idle", "Queued again{by}{forgotten}."),
    "pause_requested": ("warn", "Asked to wait{by}."),
    "paused": ("warn", "Paused{by}."),
    "put_first": ("idle", "Put before all others that wait{by}."),
    "asked_to_give_way": ("warn", "Asked to give way to “{to}”."),
    "gave_way": ("warn", "Gave way, and waits behind it."),
    "resumed": ("idle", "Resumed{by}."),
}


@dataclass(frozen=True)
class HistoryLine:
    at: datetime
    tone: str
    text: str


def describe_history(job: Job) -> list[HistoryLine]:
    """The newest events first."""
    return [HistoryLine(event.at, *describe_event(event)) for event in reversed(job.events.all())]


def describe_event(event: JobEvent) -> tuple[str, str]:
    """(tone, sentence); what a handler added is said by its own words."""
    detail = event.detail
    if event.kind not in SENTENCES:
        facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in detail.items())
        return "idle", f"{event.kind.replace('_', ' ').capitalize()}{': ' if facts else ''}{facts}."
    tone, sentence = SENTENCES[event.kind]
    values = {
        "attempt": event.attempt,
        "worker": detail.get("worker", "a worker"),
        "error": detail.get("error", ""),
        "to": detail.get("to", "another job"),
        "by": f" by {detail['by']}" if "by" in detail else "",
        "forgotten": _forgotten(detail.get("forgotten", [])),
        "wait": f" in {detail['seconds']:g} s" if detail.get("seconds") else " at once",
    }
    return tone, sentence.format(**values)


def _forgotten(names: list[str]) -> str:
    """What it was asked to do once and was not asked again."""
    words = " and ".join(name.replace("_", " ") for name in names)
    return f", without the wish to {words}" if words else ""
