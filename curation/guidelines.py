"""Guidelines: what curators write in Markdown, as HTML that is safe to show, and its revisions, of which none is lost."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import NamedTuple

import nh3
from django.db import transaction
from django.db.models import Q, QuerySet
from markdown_it import MarkdownIt

from accounts.models import User
from curation.models import Campaign, CampaignEvent, CampaignRater, CampaignState, GuidelineRevision

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


def news_for(campaign: Campaign, rater: User, newest: GuidelineRevision | None) -> list[GuidelineRevision]:
    """The revisions up to `newest` of which this rater was not told, the oldest first; nothing is news to who has not begun."""
    place = _places(campaign, rater).only("guidelines_read").first()
    if newest is None or place is None or place.guidelines_read is None or place.guidelines_read >= newest.number:
        return []
    unread = campaign.revisions.filter(number__gt=place.guidelines_read, number__lte=newest.number)
    return list(unread.order_by("number"))


def begin_reading(campaign: Campaign, rater: User, *, shown: int | None, newest: GuidelineRevision | None) -> None:
    """A rater who begins has the guidelines as they are, or the revision that their screen says it shows."""
    if newest is not None:
        number = newest.number if shown is None else min(shown, newest.number)
        _places(campaign, rater).filter(guidelines_read=None).update(guidelines_read=number)


def mark_read(campaign: Campaign, rater: User, number: int) -> None:
    """The rater knows what changed up to that revision, on every device. Raises GuidelinesRefused."""
    if not campaign.revisions.filter(number=number).exists():
        raise GuidelinesRefused(f"The guidelines of this campaign have no revision {number}.")
    unread = Q(guidelines_read=None) | Q(guidelines_read__lt=number)
    _places(campaign, rater).filter(unread).update(guidelines_read=number)


def _places(campaign: Campaign, rater: User) -> QuerySet[CampaignRater]:
    return CampaignRater.objects.filter(campaign=campaign, rater=rater)


def revise_guidelines(campaign: Campaign, text: str, *, change: str, based_on: int, by: User) -> GuidelineRevision:
    """Add a revision, which is what raters who open their screen see from now on. Raises GuidelinesRefused.

    `based_on` is the number of the revision that the writer had before them: what somebody else saved meanwhile is not
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
        if text == "\n".join(newest.text.splitlines()).strip():
            raise GuidelinesRefused("The guidelines read as they did before, so there is nothing to save.")
        revision = GuidelineRevision.objects.create(
            campaign=locked, number=newest.number + 1, text=text, change=change, by=by
        )
        Campaign.objects.filter(pk=campaign.pk).update(guidelines=text)
        CampaignEvent.objects.create(campaign=locked, kind="guidelines", by=by, detail={"revision": revision.number})
    campaign.guidelines = text
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
