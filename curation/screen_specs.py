"""What the rating screen is given: items, questions, guidelines and rounds of examples, as plain data."""

from collections.abc import Iterable
from typing import Any

from django.template.loader import render_to_string
from django.utils.crypto import salted_hmac

from accounts.models import User
from curation.assignments import Lease
from curation.details import prompt_words
from curation.example_rounds import Round
from curation.examples import example_specs, examples_of
from curation.guidelines import guidelines_html, read_by
from curation.models import Assignment, Campaign, GuidelineRevision, QuestionRevision
from curation.questions import Asked, asked_now, question_news
from generation.images import image_url

# Images stay open somewhat longer than their lease, for an answer that comes at the last moment.
IMAGE_GRACE_SECONDS = 600


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


def lease_texts(held: Lease, user: User, *, guidelines: int | None, questions: int | None) -> dict[str, Any]:
    """How the questions read, the newest revision of the guidelines, and what of both the rater was not told. `guidelines` and
    `questions` are the revisions that their screen shows, None where it does not say."""
    campaign = held.campaign
    found = campaign.newest_questions
    asked = Asked(found["number"], found["questions"]) if found else asked_now(campaign)
    # A screen that shows older questions has not read the newer ones.
    shown = asked.number if questions is None else min(questions, asked.number or 0)
    newest = campaign.newest_guidelines and campaign.newest_guidelines["number"]
    reading = read_by(held.place, newest, shown=guidelines, questions=shown)
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


def item_specs(assignment: Assignment, user: User, campaign: Campaign) -> dict[str, Any]:
    """A leased item: its words, its images from left to right, and the judgment that the next one supersedes."""
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
