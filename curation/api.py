"""The rating API: what a rater may rate, leases, and judgments."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.http import Http404, HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.crypto import salted_hmac
from ninja import Field, Router, Schema, Status
from ninja.errors import HttpError
from pydantic import BaseModel

from accounts.api import callers
from accounts.models import Scope, User
from curation.assignments import ExamplesFirst, Lease, LeaseRefused, NotARater, done_by, left_for
from curation.assignments import lease as lease_to
from curation.details import prompt_words
from curation.example_rounds import Round, RoundRefused, answer_example, round_of
from curation.examples import example_specs, examples_of, right_answers
from curation.guidelines import GuidelinesRefused, guidelines_html, mark_read, read_by
from curation.judgments import TooManyJudgments, record_judgments
from curation.keys import keep_keys
from curation.malformed import Malformed
from curation.models import Assignment, Campaign, GuidelineRevision, QuestionRevision
from curation.questions import Asked, QuestionsRefused, asked_now, mark_questions_read, question_news
from curation.submissions import MAX_ID, MAX_PLACES, MAX_REVISION
from generation.images import image_url

router = Router(tags=["rating"])
# Images stay open somewhat longer than their lease, for an answer that comes at the last moment.
IMAGE_GRACE_SECONDS = 600


class Refusal(Schema):
    detail: str


class CampaignOut(Schema):
    slug: str
    name: str
    kind: str
    done: int = Field(description="Items that the caller has judged, skipped or flagged.")
    left_for_me: int = Field(description="Items that the caller could still judge.")
    lease_url: str
    rate_url: str


class CampaignList(Schema):
    campaigns: list[CampaignOut]


# What comes in is plain JSON: a Schema would look for the fields among the attributes of a list or a number, too.
class LeaseIn(BaseModel):
    count: int = Field(10, description="How many items to hold, those held already included; 1 to 100.")
    together: bool = Field(
        False, description="Hand out new items prompt by prompt, all free ones of a prompt in a row."
    )
    guideline_revision: int | None = Field(
        None, ge=1, le=MAX_REVISION, description="The revision of the guidelines that the client shows."
    )
    question_revision: int | None = Field(
        None, ge=1, le=MAX_REVISION, description="The revision of the questions that the client shows."
    )


class ImageOut(Schema):
    url: str = Field(description="Good for the caller alone, for the time of the lease.")
    width: int
    height: int
    slot: int = Field(description="The picture's place in this list; `order` of a judgment is made of these.")
    prompt: str | None = Field(
        None, description="What it is of; only there where the pictures of an item show different prompts."
    )


class ExampleImage(Schema):
    url: str = Field(description="Good for the caller alone, for a day.")
    width: int
    height: int


class ChoiceOut(Schema):
    value: str
    label: str
    key: str = ""
    accepts: bool = False


class QuestionOut(Schema):
    name: str
    text: str
    help: str = Field("", description="A sentence below it.")
    choices: list[ChoiceOut]
    required: bool
    reasons: list[str] = Field(
        [], description="What may be given as the reason of a fail, in the order of their digits."
    )
    multiple: bool = Field(False, description="Several choices that accept may be given: in their order, joined by +.")
    needs_reason: bool = Field(False, description="A fail without a reason is refused.")
    marks: str = Field(
        "", description="What of a fail may be marked: words (of the prompt), point (in the picture), or nothing."
    )


class ItemOut(Schema):
    assignment: int
    item: int = Field(description="A number that stands for the item, the same for every rater.")
    prompt: str = Field(description="What the images are judged by: the prompt's caption, or the prompt that has none.")
    words: list[str] = Field(description="The prompt's words; `words` of a judgment's details are their places here.")
    bucket: str
    images: list[ImageOut] = Field(description="From left to right; of two sets the left one, then the right one.")
    expires_at: datetime
    supersedes: str | None = Field(None, description="The latest judgment of this assignment, where one was undone.")


class NewsOut(Schema):
    revision: int
    change: str = Field(description="What it changed, in a sentence.")
    at: datetime


class LeaseOut(Schema):
    questions: list[QuestionOut]
    question_revision: int | None = Field(description="The number of the revision in which the questions read so.")
    question_news: list[NewsOut] = Field(
        description="The revisions of the questions of which the caller was not told yet, the oldest first."
    )
    items: list[ItemOut] = Field(description="Empty when nothing is left for the caller.")
    guideline_revision: int | None = Field(
        description="The number of the guidelines' newest revision: what the caller's rater should have to read."
    )
    guideline_news: list[NewsOut] = Field(
        description="The revisions of which the caller was not told yet, the oldest first; none to who begins."
    )
    guidelines_html: str | None = Field(
        None,
        description="The guidelines as they read now, with their examples, where the request named an earlier revision.",
    )


class ReadIn(BaseModel):
    guideline_revision: int | None = Field(None, ge=1, le=MAX_REVISION)
    question_revision: int | None = Field(None, ge=1, le=MAX_REVISION)


class LeaseRefusal(Refusal):
    examples_url: str | None = Field(
        None,
        description="The page on which the caller answers the changed examples of the guidelines, where those come first.",
    )


class ExampleToAnswer(Schema):
    example: int
    prompt: str
    images: list[ExampleImage] = Field(description="From left to right.")


class RoundOut(Schema):
    questions: list[QuestionOut]
    attempt: int
    percent: int = Field(description="How many have to be right.")
    right: int = Field(description="Of those that were answered in this attempt.")
    of: int = Field(description="How many there are in all.")
    examples: list[ExampleToAnswer] = Field(description="Those that are left; empty where nothing is asked.")


class ExampleAnswerIn(BaseModel):
    example: int = Field(ge=1, le=MAX_ID)
    attempt: int = Field(ge=1, le=MAX_PLACES)
    answers: dict[str, str]


class AttemptOut(Schema):
    passed: bool
    right: int
    of: int
    percent: int


class ToldOut(Schema):
    right: bool
    said: list[str] = Field(description="The right answers in words.")
    why: str
    left: int = Field(description="How many are left in this attempt.")
    ended: AttemptOut | None = Field(description="How the attempt went, with its last answer.")


class JudgmentsIn(BaseModel):
    judgments: list[Any] = Field(
        description=(
            "An answer is the value of a choice; where a question is multiple, several are joined by + in their order, such as 1+3: the "
            "places of the pictures picked, from 1. At most 200 objects {id: UUID, assignment, answers: {question: value}, shown_at, decided_at, order, supersedes, "
            "action: answer | skip | flag | undo, reason, details: {failed question: {reasons: [...], words: [places], point: [x, y]}}, "
            "page, place, page_size, guideline_revision, question_revision}. Details may be left out. Page, place and page_size say that it was shown on a page "
            "with others: a UUID that they share, where on it, from 0, and how many there were. guideline_revision is the number of the "
            "revision that the rater had to read; without it, it is the one that was the newest when the item was leased. question_revision is the same "
            "of the questions, by which the answers are checked as they read then. Each row is judged on its own: a malformed one is rejected with its reason."
        )
    )


class KeysIn(BaseModel):
    keys: Any = Field(
        description="{commands: {command: key}, answers: {kind: {question: {value: key}}}}; what is left out is as usual."
    )


class KeysOut(Schema):
    keys: dict[str, Any]


class ResultOut(Schema):
    id: str | None
    status: str = Field(description="stored, duplicate or rejected")
    reason: str = ""


class ResultsOut(Schema):
    results: list[ResultOut]


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
    "/campaigns/{slug}/lease",
    response={200: LeaseOut, 404: Refusal, 409: LeaseRefusal},
    auth=callers(Scope.RATE),
    url_name="lease",
    exclude_unset=True,
)
def lease(request: HttpRequest, slug: str, wanted: LeaseIn) -> dict[str, Any] | Status[dict[str, str]]:
    """Items to judge: those that the caller holds, then new ones. 409 where the campaign is not open, and where the caller
    has to answer examples first."""
    user = _caller(request)
    try:
        held = lease_to(slug, user, wanted.count, together=wanted.together)
    except NotARater as refusal:
        raise Http404 from refusal
    except ExamplesFirst as refusal:
        return Status(409, {"detail": str(refusal.args[0]), "examples_url": reverse("rate_examples", args=[slug])})
    except LeaseRefused as refusal:
        raise HttpError(409, str(refusal.args[0])) from refusal
    return {
        "items": [_item(assignment, user, held.campaign) for assignment in held.assignments],
        **_texts(held, user, wanted),
    }


@router.post(
    "/campaigns/{slug}/guidelines-read",
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
    "/campaigns/{slug}/examples",
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
    "/campaigns/{slug}/examples",
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
    "/judgments", response={200: ResultsOut, 403: Refusal, 413: Refusal}, auth=callers(Scope.RATE), url_name="judgments"
)
def judge(request: HttpRequest, batch: JudgmentsIn) -> dict[str, Any]:
    """Take in judgments, each on its own, in the order given. Sending one again is harmless."""
    user = _caller(request)
    if not (user.is_superuser or user.has_role("rater")):
        raise HttpError(403, "Your role does not include rating.")
    try:
        results = record_judgments(user, batch.judgments)
    except TooManyJudgments as refusal:
        raise HttpError(413, str(refusal.args[0])) from refusal
    return {"results": [result._asdict() for result in results]}


@router.put("/rating-keys", response={200: KeysOut, 422: Refusal}, auth=callers(Scope.RATE), url_name="rating-keys")
def choose_keys(request: HttpRequest, chosen: KeysIn) -> dict[str, Any]:
    """The caller's own keys for rating, in the place of those before."""
    try:
        return {"keys": keep_keys(_caller(request), chosen.keys)}
    except Malformed as fault:
        raise HttpError(422, str(fault.args[0])) from fault


def news_specs(news: Iterable[GuidelineRevision | QuestionRevision]) -> list[dict[str, Any]]:
    """What changed in the guidelines or questions and this rater was not told, as the rating screen wants it."""
    return [{"revision": row.number, "change": row.change, "at": row.at} for row in news]


def guidelines_shown(campaign: Campaign, user: User, revision: GuidelineRevision | None) -> dict[str, Any]:
    """The guidelines and their examples, as `rate/_guidelines.html` wants them."""
    return {
        "guidelines_html": guidelines_html(revision.text if revision else campaign.guidelines),
        "examples": example_specs(examples_of(revision), list(campaign.questions.all()), user),
    }


def round_specs(campaign: Campaign, user: User, asked: Round) -> dict[str, Any]:
    """A round as its screen wants it, without the answers."""
    left = asked.left
    return {
        "attempt": asked.attempt,
        "percent": asked.revision.asks_percent,
        "right": asked.right,
        "of": len(asked.examples),
        "examples": [
            {"example": row.pk, "prompt": shown["prompt"], "images": shown["images"]}
            for row, shown in zip(left, example_specs(left, list(campaign.questions.all()), user), strict=True)
        ],
    }


def _texts(held: Lease, user: User, wanted: LeaseIn) -> dict[str, Any]:
    """How the questions read, the newest revision of the guidelines, and what of both the caller was not told."""
    campaign = held.campaign
    found = campaign.newest_questions
    asked = Asked(found["number"], found["questions"]) if found else asked_now(campaign)
    # A screen that shows older questions has not read the newer ones.
    shown = asked.number if wanted.question_revision is None else min(wanted.question_revision, asked.number or 0)
    newest = campaign.newest_guidelines and campaign.newest_guidelines["number"]
    reading = read_by(held.place, newest, shown=wanted.guideline_revision, questions=shown)
    html = None
    if reading.newer is not None:
        html = render_to_string("rate/_guidelines.html", guidelines_shown(campaign, user, reading.newer))
    return {
        "questions": asked.questions,
        "question_revision": asked.number,
        "question_news": news_specs(question_news(campaign, reading.questions_read, asked.number)),
        "guideline_revision": reading.number,
        "guideline_news": news_specs(reading.news),
        "guidelines_html": html,
    }


def _item(assignment: Assignment, user: User, campaign: Campaign) -> dict[str, Any]:
    chain = assignment.chain  # type: ignore[attr-defined]
    shown = assignment.shown  # type: ignore[attr-defined]
    several = campaign.many_prompts
    about = f"{len(shown) // 2} prompts, a sticker of each" if several else assignment.item.prompt.taught_as
    return {
        "assignment": assignment.pk,
        "item": _opaque(assignment.item_id),
        "prompt": about,
        "words": [] if several else prompt_words(assignment.item.prompt),
        "bucket": assignment.item.bucket,
        "images": [
            {
                "url": image_url(sample.image, viewer=user, seconds=campaign.lease_seconds + IMAGE_GRACE_SECONDS),
                "width": sample.width,
                "height": sample.height,
                "slot": place,
                **({"prompt": sample.prompt.taught_as} if several else {}),
            }
            for place, sample in enumerate(shown)
        ],
        "expires_at": assignment.expires_at,
        "supersedes": str(chain[0].pk) if chain else None,
    }


def _opaque(item_id: int) -> int:
    """A number that stands for the item, the same for everybody. The rows' own numbers would tell gold from the rest, by when
    they were made; 52 bits are exact in every client."""
    return int.from_bytes(salted_hmac("curation.items", str(item_id)).digest()[:8]) >> 12


def _caller(request: HttpRequest) -> User:
    # Either way of signing in leaves an active person here.
    assert isinstance(request.user, User)
    return request.user
