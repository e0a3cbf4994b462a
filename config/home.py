"""The first page: what waits for you, by role. It sees all rooms, so it lives above them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from accounts.models import Role, User
from accounts.policies import signed_in
from curation import tallies
from curation.accuracy import accuracy_told
from curation.adjudications import waiting_in
from curation.approvals import APPROVERS, may_approve
from curation.assignments import left_for
from curation.campaigns import is_blind_for
from curation.example_rounds import with_asked
from curation.models import (
    Approval,
    ApprovalAct,
    Campaign,
    CampaignState,
    DatasetVersion,
    Judgment,
    JudgmentAction,
    Outcome,
    TallyKind,
)
from curation.standing import home_words
from curation.statistics import progress_of
from generation.batches import count_samples
from generation.models import ModelVersion, PromptSet, Sample
from jobs.models import Job, JobState, Queue, Worker
from training.models import Evaluation, TrainingRun

TEAM = (Role.CURATOR, Role.OPERATOR, Role.AUDITOR)


@require_safe
@signed_in
def home(request: HttpRequest) -> HttpResponse:
    """What waits for this person: work to rate, campaigns to look after, the loop and what moves in it."""
    user = request.user
    assert isinstance(user, User)
    context: dict[str, Any] = {"rating": rating(user)}
    if user.is_superuser or user.has_role(*TEAM):
        context["stations"] = stations()
        context["moving"] = Job.objects.open().select_related("created_by").order_by("-state", "-created_at")[:6]
        context["workers"] = Worker.objects.filter(seen_at__gt=timezone.now() - timedelta(minutes=1))
        context["campaigns"] = campaigns(user)
        context["to_approve"] = to_approve(user)
        context["last_evaluation"] = Evaluation.objects.select_related("baseline", "candidate", "job").first()
        context["promoted"] = ModelVersion.objects.promoted()
        context["next_step"] = next_step(user)
        context["may_curate"] = user.is_superuser or user.has_role(Role.CURATOR)
    return render(request, "home.html", context)


def rating(user: User) -> dict[str, Any]:
    """The campaigns this person may rate with what is left for them, and what they did today."""
    rateable = [
        {
            "campaign": campaign,
            "left": left_for(campaign, user),
            "accuracy": accuracy_told(campaign, user),
            "standing": home_words(campaign, with_asked(campaign.memberships.filter(rater=user)).get()),
        }
        for campaign in Campaign.objects.rateable_by(user).order_by("opened_at", "id")
    ]
    answered = Judgment.objects.filter(rater=user, action=JudgmentAction.ANSWER, superseded_by=None)
    mine = user.memberships.values_list("campaign", flat=True)
    today = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "campaigns": rateable,
        "next": next((row for row in rateable if row["left"]), None),
        "today": answered.filter(received_at__gte=today).count(),
        "ever": tallies.total(mine, TallyKind.ENDED, JudgmentAction.ANSWER, rater_id=user.pk),
    }


def stations() -> list[dict[str, Any]]:
    """The loop as six stations with their counts."""
    busy = dict(Job.objects.open().values_list("queue").annotate(n=Count("pk")))
    states = dict(Campaign.objects.values_list("pk", "state"))
    open_items = tallies.total((pk for pk, state in states.items() if state == CampaignState.OPEN), TallyKind.OPEN)
    accepted = tallies.total(states, TallyKind.OUTCOME, Outcome.ACCEPTED)
    running = TrainingRun.objects.filter(job__state=JobState.RUNNING).count()
    return [
        _station("Prompts", "prompt_sets", "file-text", PromptSet.objects.values("slug").distinct().count(), "sets"),
        _station("Samples", "samples", "images", count_samples(), _moving(busy.get(Queue.GENERATE, 0), "drawing")),
        _station(
            "Verdicts", "campaigns", "star", accepted, f"accepted · {open_items} to judge" if open_items else "accepted"
        ),
        _station("Dataset versions", "datasets", "database", DatasetVersion.objects.count(), "frozen"),
        _station("Runs", "runs", "activity", TrainingRun.objects.count(), _moving(running, "training")),
        _station("Model versions", "models", "boxes", ModelVersion.objects.count(), "versions"),
    ]


def _station(label: str, url: str, icon: str, count: int, note: str) -> dict[str, Any]:
    return {"label": label, "url": reverse(url), "icon": icon, "count": count, "note": note}


def _moving(count: int, verb: str) -> str:
    return f"{count} {verb} now" if count else "nothing moves"


def campaigns(user: User) -> list[dict[str, Any]]:
    """The open campaigns with how far they are, and what waits there for a curator; of a comparison in which this person
    judges, not that."""
    rows = Campaign.objects.filter(state__in=[CampaignState.OPEN, CampaignState.PAUSED]).order_by("-id")[:8]
    progress = progress_of(rows)
    waiting = waiting_in([campaign for campaign in rows if not is_blind_for(campaign, user)])
    return [
        {"campaign": row, "waiting": waiting.get(row.pk), "total": each.items, "done": each.done}
        for row in rows
        for each in [progress[row.pk]]
    ]


def to_approve(user: User) -> list[DatasetVersion]:
    """The dataset versions whose approval was asked for, of whoever may approve them; those that wait longest first."""
    if not may_approve(user):
        return []
    return list(DatasetVersion.objects.waiting().select_related("dataset", "frozen_by").order_by("frozen_at")[:8])


class Step(NamedTuple):
    """A step of the loop, and who takes it."""

    is_taken: Callable[[], bool]
    label: str
    url: str
    text: str
    roles: tuple[Role, ...]


STEPS = (
    Step(
        lambda: ModelVersion.objects.exists(),
        "Import a model",
        "model_import",
        "A diffusers folder on this machine, safetensors only.",
        (Role.OPERATOR,),
    ),
    Step(
        lambda: PromptSet.objects.exists(),
        "Write a prompt set",
        "prompt_set_new",
        "Paste one prompt a line, or a CSV file.",
        (Role.CURATOR,),
    ),
    Step(
        lambda: Sample.objects.exists(),
        "Draw a batch",
        "batch_new",
        "Some images of every prompt, to be judged.",
        (Role.CURATOR,),
    ),
    Step(
        lambda: Campaign.objects.exists(),
        "Open a campaign",
        "campaign_new",
        "Ask raters about the samples.",
        (Role.CURATOR,),
    ),
    Step(
        lambda: DatasetVersion.objects.exists(),
        "Freeze a dataset",
        "dataset_new",
        "Keep what the raters accepted, for good.",
        (Role.CURATOR,),
    ),
    Step(
        lambda: TrainingRun.objects.exists() or Approval.objects.filter(act=ApprovalAct.APPROVED).exists(),
        "Approve what was frozen",
        "datasets",
        "Look a dataset version over; then runs may learn from it.",
        APPROVERS,
    ),
    Step(
        lambda: TrainingRun.objects.exists(),
        "Start a run",
        "run_new",
        "Teach the model what was accepted.",
        (Role.OPERATOR,),
    ),
    Step(
        lambda: Evaluation.objects.exists(),
        "Evaluate the new version",
        "evaluation_new",
        "Let it meet its parent, blind.",
        (Role.OPERATOR,),
    ),
)


def next_step(user: User) -> dict[str, str] | None:
    """The first thing of the loop that is still missing, for a workspace that is only beginning."""
    step = next((step for step in STEPS if not step.is_taken()), None)
    if step is None:
        return None
    allowed = user.is_superuser or user.has_role(*step.roles)
    return {
        "label": step.label,
        "url": reverse(step.url) if allowed else "",
        "text": step.text,
        "roles": " and ".join(f"{role.label.lower()}s" for role in step.roles).capitalize(),
    }
