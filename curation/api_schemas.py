"""What goes in and out of the rating API."""

from datetime import datetime
from typing import Annotated, Any

from ninja import Field, Schema
from pydantic import BaseModel

from curation.submissions import MAX_ID, MAX_PLACES, MAX_REVISION


class Refusal(Schema):
    detail: str


class RoleRefusal(Refusal):
    code: str = Field(
        "", description="`no-rater-role` where the caller's account may not rate, and signing in again does not help."
    )


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
    holding: list[Annotated[int, Field(ge=1, le=MAX_ID)]] = Field(
        [],
        max_length=1000,
        description="The assignments that the client has in hand; the answer says which of them are gone.",
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
    gone: list[int] = Field(
        description="Those of `holding` that are not the caller's to judge now: judged, skipped or reported on another device."
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
            "places of the pictures picked, from 1. At most 10,000 objects {id: UUID, assignment, answers: {question: value}, shown_at, decided_at, order, supersedes, "
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
    stands: bool = Field(False, description="of a rejected one: something else stands that its rater said of the item")


class ResultsOut(Schema):
    results: list[ResultOut]
