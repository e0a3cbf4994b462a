"""Guidelines: what curators write in Markdown, as HTML that is safe to show, and its revisions, of which none is lost."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import nh3
from django.db import transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery
from markdown_it import MarkdownIt

from accounts.models import User
from curation.examples import Example, ExamplesRefused, as_examples, examples_of, in_one_form, keep_examples
from curation.models import Campaign, CampaignEvent, CampaignRater, CampaignState, GuidelineExample, GuidelineRevision

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_TAGS = {
    "a", "blockquote", "br", "code", "em", "h1", "h2", "h3", "h4", "hr", "li", "ol", "p", "pre", "strong", "table", "tbody",
    "td", "th", "thead", "tr", "ul",
}  # fmt: skip


def guidelines_html(markdown: str) -> str:
    """Markdown as HTML without scripts, styles, images or forms; links open outside."""
    return nh3.clean(_MARKDOWN.render(markdown), tags=_TAGS, attributes={"a": {"href"}}, url_schemes={"http", "https"})


class GuidelinesRefused(Exception):
    """What was asked of the guidelines was not done; the message says why, for a person."""


class Part(NamedTuple):
    """A stretch of text that both revisions have ("same"), or only the newer ("added") or the older ("removed")."""

    kind: str
    text: str


def first_revision(campaign: Campaign) -> GuidelineRevision:
    """Keep the guidelines with which a campaign was set up."""
    return GuidelineRevision.objects.create(
        campaign=campaign,
        number=1,
        text=campaign.guidelines,
        change="As the campaign was set up.",
        by=campaign.created_by,
        at=campaign.created_at,
    )


def newest_revision(campaign: Campaign) -> GuidelineRevision | None:
    """What the guidelines say now."""
    return campaign.revisions.first()


class Reading(NamedTuple):
    """Where a rater stands with the guidelines: the number of the newest revision, `news` of which they were not told, the
    oldest first, and `newer`, the newest where their screen shows an earlier one. `questions_read` is the revision up to which
    they know how the questions read."""

    number: int | None
    news: list[GuidelineRevision]
    newer: GuidelineRevision | None
    questions_read: int | None


def reading_of(campaign: Campaign, rater: User) -> Reading:
    """Where the rater stands with what their screen is about to show. Nothing is news to who has not begun."""
    newest = GuidelineRevision.objects.filter(campaign=OuterRef("campaign")).order_by("-number").values("number")
    place = _places(campaign, rater).annotate(newest=Subquery(newest[:1])).first()
    return Reading(None, [], None, None) if place is None else _reading(place, place.newest, None)


def read_by(place: CampaignRater, number: int | None, *, shown: int | None, questions: int | None) -> Reading:
    """Where the rater stands who leases, and the guidelines' newest revision has that number; without a query where nothing is
    new, as with most leases. Who has not begun has the guidelines from now on as they are, or the revision that their screen says
    it shows, and that revision of the questions."""
    places = CampaignRater.objects.filter(pk=place.pk)
    if place.guidelines_read is None and number is not None:
        place.guidelines_read = number if shown is None else min(shown, number)
        places.filter(guidelines_read=None).update(guidelines_read=place.guidelines_read)
    if place.questions_read is None and questions is not None:
        place.questions_read = questions
        places.filter(questions_read=None).update(questions_read=questions)
    return _reading(place, number, shown)


def _reading(place: CampaignRater, number: int | None, shown: int | None) -> Reading:
    read = place.guidelines_read
    if number is None or read is None:
        return Reading(number, [], None, place.questions_read)
    since = min(read, number if shown is None else shown)
    if since >= number:
        return Reading(number, [], None, place.questions_read)
    rows = GuidelineRevision.objects.filter(campaign=place.campaign_id, number__gt=since, number__lte=number)
    unread = list(rows.order_by("number"))
    is_older = shown is not None and shown < number
    news = [row for row in unread if row.number > read]
    return Reading(number, news, unread[-1] if is_older else None, place.questions_read)


def mark_read(campaign: Campaign, rater: User, number: int) -> None:
    """The rater knows what changed up to that revision, on every device. Raises GuidelinesRefused."""
    if not campaign.revisions.filter(number=number).exists():
        raise GuidelinesRefused(f"The guidelines of this campaign have no revision {number}.")
    unread = Q(guidelines_read=None) | Q(guidelines_read__lt=number)
    _places(campaign, rater).filter(unread).update(guidelines_read=number)


def _places(campaign: Campaign, rater: User) -> QuerySet[CampaignRater]:
    return CampaignRater.objects.filter(campaign=campaign, rater=rater)


def revise_guidelines(
    campaign: Campaign,
    text: str,
    *,
    change: str,
    based_on: int,
    by: User,
    examples: Sequence[Example] | None = None,
    asks_percent: int | None = None,
) -> GuidelineRevision:
    """Add a revision, which is what raters who open their screen see from now on. Raises GuidelinesRefused.

    Without `examples` those of before stay. What becomes an example is no item of the campaign any more. With `asks_percent`
    raters get nothing more before they have answered so many percent of the added and changed examples right. `based_on` is the number of the revision that the writer had before them: what somebody else saved meanwhile is not
    undone unseen.
    """
    text = "\n".join(text.splitlines()).strip()
    change = " ".join(change.split())
    if not change:
        raise GuidelinesRefused("Say in a sentence what you changed.")
    with transaction.atomic():
        locked = Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
        newest = locked.revisions.first() or first_revision(locked)
        if locked.state == CampaignState.CLOSED:
            raise GuidelinesRefused("This campaign is closed. Open it again to change its guidelines.")
        if newest.number != based_on:
            raise GuidelinesRefused(
                f"{newest.by} saved revision {newest.number} meanwhile. Your text is kept here: look below at what that "
                "changed, put it into yours, and save again."
            )
        before = examples_of(newest)
        wanted = as_examples(before) if examples is None else in_one_form(locked, examples)
        if text == "\n".join(newest.text.splitlines()).strip() and wanted == as_examples(before):
            raise GuidelinesRefused("The guidelines read as they did before, so there is nothing to save.")
        revision = _add_revision(locked, newest, before, wanted, asks_percent, text=text, change=change, by=by)
        Campaign.objects.filter(pk=campaign.pk).update(guidelines=text)
        CampaignEvent.objects.create(campaign=locked, kind="guidelines", by=by, detail={"revision": revision.number})
    campaign.guidelines = text
    return revision


def _add_revision(
    campaign: Campaign,
    newest: GuidelineRevision,
    before: Sequence[GuidelineExample],
    examples: Sequence[Example],
    asks_percent: int | None,
    **fields: Any,
) -> GuidelineRevision:
    number, asks = newest.number + 1, asks_percent is not None
    if asks_percent is not None and not 1 <= asks_percent <= 100:
        raise GuidelinesRefused("Between 1 and 100% of the changed examples can be asked to be right.")
    try:
        rows = keep_examples(campaign, before, examples, number=number, asks=asks)
    except ExamplesRefused as refusal:
        raise GuidelinesRefused(refusal.args[0]) from refusal
    revision = GuidelineRevision.objects.create(
        campaign=campaign,
        number=number,
        # What an earlier revision asks is asked on, as long as one of its examples is there.
        asks_up_to=max((row.asked_since or 0 for row in rows), default=0),
        asks_percent=newest.asks_percent if asks_percent is None else asks_percent,
        **fields,
    )
    for row in rows:
        row.revision = revision
    GuidelineExample.objects.bulk_create(rows)
    return revision


def changes(old: str, new: str) -> list[Part]:
    """What became of the old text: line by line, and word by word within lines that were rewritten."""
    before, after = _lines(old), _lines(new)
    parts: list[Part] = []
    for kind, start, end, begin, stop in SequenceMatcher(None, before, after).get_opcodes():
        was, became = "".join(before[start:end]), "".join(after[begin:stop])
        if kind == "replace":
            parts += _compare(re.findall(r"\s+|\S+", was), re.findall(r"\s+|\S+", became))
        else:
            parts += _told(kind, was, became)
    return parts


def _lines(text: str) -> list[str]:
    return [f"{line}\n" for line in text.splitlines()]


def _compare(before: list[str], after: list[str]) -> Iterator[Part]:
    for kind, start, end, begin, stop in SequenceMatcher(None, before, after).get_opcodes():
        yield from _told(kind, "".join(before[start:end]), "".join(after[begin:stop]))


def _told(kind: str, was: str, became: str) -> Iterator[Part]:
    if kind == "equal":
        yield Part("same", was)
        return
    if was:
        yield Part("removed", was)
    if became:
        yield Part("added", became)
