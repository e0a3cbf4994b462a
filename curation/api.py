"""The rating API: what a rater may rate, leases, and judgments."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Router, Status
from ninja.errors import HttpError
from ninja.responses import Response

from accounts.api import callers
from accounts.models import Scope, User
from curation.api_schemas import (
    CampaignList,
    ExampleAnswerIn,
    JudgmentsIn,
    KeysIn,
    KeysOut,
    LeaseIn,
    LeaseOut,
    LeaseRefusal,
    ReadIn,
    Refusal,
    ResultsOut,
    RoleRefusal,
    RoundOut,
    ToldOut,
)
from curation.assignments import ExamplesFirst, LeaseRefused, NotARater, done_by, left_for
from curation.assignments import lease as lease_to
from curation.example_rounds import RoundRefused, answer_example, round_of
from curation.examples import right_answers
from curation.guidelines import GuidelinesRefused, mark_read
from curation.judgments import TooManyJudgments, record_judgments
from curation.keys import keep_keys
from curation.leases import no_longer_held
from curation.malformed import Malformed
from curation.models import Campaign
from curation.questions import QuestionsRefused, asked_now, mark_questions_read
from curation.screen_specs import item_specs, lease_texts, round_specs

router = Router(tags=["rating"])
# By its code a client tells it from a request that is refused for its session or its token.
NO_ROLE = {"detail": "Your role does not include rating.", "code": "no-rater-role"}


@router.get("/campaigns", response=CampaignList, auth=callers(Scope.RATE))
def list_campaigns(request: HttpRequest) -> dict[str, Any]:
    """The campaigns that the caller may rate now."""
    user = _caller(request)
    rows = Campaign.objects.rateable_by(user).order_by("opened_at", "pk")
    return {
        "campaigns": [
            {
                "slug": row.slug,
                "name": row.name,
                "kind": row.kind,
                "done": done_by(row, user),
                "left_for_me": left_for(row, user),
                "lease_url": reverse("api-1:lease", args=[row.slug]),
                "rate_url": reverse("rate", args=[row.slug]),
            }
            for row in rows
        ]
    }


@router.post(
    "/campaigns/{slug:slug}/lease",
    response={200: LeaseOut, 403: RoleRefusal, 404: Refusal, 409: LeaseRefusal},
    auth=callers(Scope.RATE),
    url_name="lease",
)
def lease(request: HttpRequest, slug: str, wanted: LeaseIn) -> HttpResponse | Status[dict[str, str]]:
    """Items to judge: those that the caller holds, then new ones; fewer than asked for where other raters would be left without.
    409 where the campaign is not open, and where the caller has to answer examples first."""
    user = _caller(request)
    if not _may_rate(user):
        return Status(403, NO_ROLE)
    try:
        held = lease_to(slug, user, wanted.count, together=wanted.together)
    except NotARater as refusal:
        raise Http404 from refusal
    except ExamplesFirst as refusal:
        return Status(409, {"detail": str(refusal.args[0]), "examples_url": reverse("rate_examples", args=[slug])})
    except LeaseRefused as refusal:
        raise HttpError(409, str(refusal.args[0])) from refusal
    return _as_it_is(
        {
            "gone": no_longer_held(user, wanted.holding),
            "items": [item_specs(assignment, user, held.campaign) for assignment in held.assignments],
            **lease_texts(held, user, guidelines=wanted.guideline_revision, questions=wanted.question_revision),
        }
    )


@router.post(
    "/campaigns/{slug:slug}/guidelines-read",
    response={204: None, 404: Refusal, 422: Refusal},
    auth=callers(Scope.RATE),
    url_name="guidelines-read",
)
def note_read(request: HttpRequest, slug: str, read: ReadIn) -> Status[None]:
    """The caller has read what changed up to this revision of the guidelines or of the questions, and is not told again."""
    user = _caller(request)
    campaign = Campaign.objects.with_rater(user).filter(slug=slug).first()
    if campaign is None:
        raise Http404
    try:
        if read.guideline_revision is None and read.question_revision is None:
            raise HttpError(422, "Name the guideline_revision or the question_revision that was read.")
        if read.guideline_revision is not None:
            mark_read(campaign, user, read.guideline_revision)
        if read.question_revision is not None:
            mark_questions_read(campaign, user, read.question_revision)
    except (GuidelinesRefused, QuestionsRefused) as refusal:
        raise HttpError(422, str(refusal.args[0])) from refusal
    return Status(204, None)


@router.get(
    "/campaigns/{slug:slug}/examples",
    response={200: RoundOut, 404: Refusal, 409: Refusal},
    auth=callers(Scope.RATE),
    url_name="examples",
)
def list_examples(request: HttpRequest, slug: str) -> dict[str, Any]:
    """The changed examples that the caller has to answer before they get more."""
    user = _caller(request)
    campaign = Campaign.objects.with_rater(user).filter(slug=slug).first()
    if campaign is None:
        raise Http404
    try:
        asked = round_of(campaign, user)
    except RoundRefused as refusal:
        raise HttpError(409, str(refusal.args[0])) from refusal
    return {"questions": asked_now(campaign).questions, **round_specs(campaign, user, asked)}


@router.post(
    "/campaigns/{slug:slug}/examples",
    response={200: ToldOut, 404: Refusal, 409: Refusal, 422: Refusal},
    auth=callers(Scope.RATE),
    url_name="answer-example",
)
def take_example(request: HttpRequest, slug: str, given: ExampleAnswerIn) -> dict[str, Any]:
    """The caller's answer to one of those; says what is right and why. Sending it again is harmless."""
    user = _caller(request)
    campaign = Campaign.objects.with_rater(user).filter(slug=slug).first()
    if campaign is None:
        raise Http404
    try:
        answer, asked, ended = answer_example(
            campaign, user, example=given.example, attempt=given.attempt, answers=given.answers
        )
    except RoundRefused as refusal:
        raise HttpError(409, str(refusal.args[0])) from refusal
    except Malformed as fault:
        raise HttpError(422, str(fault.args[0])) from fault
    return {
        "right": answer.right,
        "said": right_answers(answer.example, list(campaign.questions.all())),
        "why": answer.example.why,
        "left": len(asked.left),
        "ended": ended,
    }


@router.post(
    "/judgments",
    response={200: ResultsOut, 403: RoleRefusal, 413: Refusal},
    auth=callers(Scope.RATE),
    url_name="judgments",
)
def judge(request: HttpRequest, batch: JudgmentsIn) -> HttpResponse | Status[dict[str, str]]:
    """Take in judgments, each on its own, in the order given. Sending one again is harmless."""
    user = _caller(request)
    if not _may_rate(user):
        return Status(403, NO_ROLE)
    try:
        results = record_judgments(user, batch.judgments)
    except TooManyJudgments as refusal:
        raise HttpError(413, str(refusal.args[0])) from refusal
    return _as_it_is({"results": [result._asdict() for result in results]})


@router.put("/rating-keys", response={200: KeysOut, 422: Refusal}, auth=callers(Scope.RATE), url_name="rating-keys")
def choose_keys(request: HttpRequest, chosen: KeysIn) -> dict[str, Any]:
    """The caller's own keys for rating, in the place of those before."""
    try:
        return {"keys": keep_keys(_caller(request), chosen.keys)}
    except Malformed as fault:
        raise HttpError(422, str(fault.args[0])) from fault


def _as_it_is(answer: dict[str, Any]) -> HttpResponse:
    """The answer without being read by its schema, which takes as long as half of what a lease asks of the database; tests
    compare the two."""
    return Response(answer, content_type="application/json; charset=utf-8")


def _may_rate(user: User) -> bool:
    return user.is_superuser or user.has_role("rater")


def _caller(request: HttpRequest) -> User:
    # Either way of signing in leaves an active person here.
    assert isinstance(request.user, User)
    return request.user
