"""A rater's standing in a campaign: whether they may get its items.

    qualifying -> rating        enough gold answers of the round were right, or a curator let them in
    qualifying -> unqualified   too few were
    rating     -> paused        the gold answers since they were let in prove that they are below the bar
    unqualified, paused -> rating or qualifying, by a curator

The proof holds however often it is looked for (curation.evidence): a rater who is right as often as the bar asks is ever paused
with a chance of 5% at most. Intervals on pages are Wilson's, for one look. Whatever the standing, judgments that come in are kept.
"""

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from accounts.models import User
from curation.accuracy import gold_record
from curation.evidence import evidence_below
from curation.example_rounds import is_asked
from curation.gold import GoldRefused, active_gold, unseen_gold
from curation.models import Campaign, CampaignEvent, CampaignRater, RaterState
from curation.records import stretches_of
from curation.statistics import Share

# Fewer answers say nothing, whatever they are.
LEAST_TO_PAUSE = 5


@transaction.atomic
def set_bars(
    campaign: Campaign,
    *,
    qualification_items: int,
    qualification_percent: int,
    pause_window: int,
    pause_percent: int,
    by: User,
) -> None:
    """How raters qualify (0 items: without a round) and when they are paused (window 0: never). Raises GoldRefused.

    A round that is asked for anew is for all who have not passed one; where none is asked for any more, all may rate.
    """
    if qualification_items > (count := active_gold(campaign).count()):
        raise GoldRefused(f"A round of {qualification_items} needs as many gold items, and there are {count}.")
    bars = {
        "qualification_items": qualification_items,
        "qualification_percent": qualification_percent,
        "pause_window": pause_window,
        "pause_percent": pause_percent,
    }
    if not Campaign.objects.filter(pk=campaign.pk).exclude(**bars).update(**bars):
        return
    campaign.refresh_from_db(fields=list(bars))
    CampaignEvent.objects.create(campaign=campaign, kind="bars", by=by, detail=bars)
    places = CampaignRater.objects.filter(campaign=campaign)
    if not qualification_items:
        waiting = [RaterState.QUALIFYING, RaterState.UNQUALIFIED]
        places.filter(state__in=waiting).update(state=RaterState.RATING, measure={})
        return
    # Gold answers that they have given already count.
    places.filter(state=RaterState.RATING, qualified_at=None).update(state=RaterState.QUALIFYING)
    for place in places.filter(state=RaterState.QUALIFYING).select_for_update(no_key=True).select_related("rater"):
        settle(campaign, place)


def review(campaign: Campaign, rater: User) -> None:
    """Look at this rater's gold answers anew, and change their standing where these ask for it."""
    with transaction.atomic():
        # Of two requests at once the second waits here, and then sees the answers of both.
        places = CampaignRater.objects.filter(campaign=campaign, rater=rater).select_related("rater")
        place = places.select_for_update(of=("self",), no_key=True).first()
        if place is not None:
            settle(campaign, place)


def settle(campaign: Campaign, place: CampaignRater) -> None:
    """As `review`, of a place that the caller has locked."""
    if place.state == RaterState.QUALIFYING and campaign.qualification_items:
        # Read whole: a round is over after as many answers as it asks for, which are 50 at most.
        record = gold_record(campaign, place.rater, place.measured_since)
        if len(record) >= campaign.qualification_items:
            _end_round(campaign, place, Share(sum(record), len(record)))
    elif place.state == RaterState.RATING and campaign.pause_window:
        stretches = stretches_of(campaign, place, campaign.pause_window)
        if stretches.answers >= LEAST_TO_PAUSE:
            found = evidence_below(campaign.pause_percent / 100, stretches)
            if found.is_enough:
                measure = _measure(Share(found.right, found.of), campaign.pause_percent)
                _move(place, RaterState.PAUSED, "rater paused", place.rater, measure=measure)


def let_in(place: CampaignRater, *, by: User) -> bool:
    """Let a rater go on who is paused, or has not qualified; False where there is nothing to lift. What they are measured by
    begins anew."""
    if place.state == RaterState.RATING:
        return False
    kind = "pause lifted" if place.state == RaterState.PAUSED else "rater let in"
    return _move(place, RaterState.RATING, kind, by, measure={}, measured_since=Now(), qualified_at=Now())


def give_round(place: CampaignRater, *, by: User) -> bool:
    """Another qualification round, with gold items that this rater has not had; False where they have no need of one. Raises
    GoldRefused where too few are left."""
    campaign = place.campaign
    if place.state not in (RaterState.UNQUALIFIED, RaterState.PAUSED) or not campaign.qualification_items:
        return False
    left = unseen_gold(campaign, place.rater).count()
    if left < campaign.qualification_items:
        raise GoldRefused(
            f"A round needs {campaign.qualification_items} gold items that {place.rater} has not had, and {left} are left. "
            "Make more, or let them in."
        )
    return _move(place, RaterState.QUALIFYING, "another round", by, measure={}, measured_since=Now(), qualified_at=None)


def round_left(campaign: Campaign, place: CampaignRater) -> int:
    """How many gold answers this rater's qualification round still wants."""
    return _left_of(campaign, len(gold_record(campaign, place.rater, place.measured_since)))


def _left_of(campaign: Campaign, given: int) -> int:
    return max(campaign.qualification_items - given, 0)


def why_refused(place: CampaignRater) -> str:
    """Why this rater gets nothing, in a sentence for them; empty where they do."""
    right, of, asked = (place.measure.get(name, 0) for name in ("right", "of", "percent"))
    if place.state == RaterState.UNQUALIFIED:
        return (
            f"You did not pass the qualification round of this campaign: {right} of {of} answers were right, and {asked}% are "
            "asked for. What you judged is kept. A curator can give you another round."
        )
    if place.state == RaterState.PAUSED:
        return (
            f"You are paused in this campaign: of your last {of} answers to items whose answer is known, {right} were right, "
            f"and {asked}% are asked for, which is more than bad luck explains. What you judged is kept. Read the guidelines "
            "again; a curator can lift the pause."
        )
    return ""


def in_words(place: CampaignRater) -> str:
    """The standing for curators; empty where it is the usual one."""
    right, of = place.measure.get("right", 0), place.measure.get("of", 0)
    return {
        RaterState.QUALIFYING: "in qualification",
        RaterState.UNQUALIFIED: f"did not qualify: {right} of {of} right",
        RaterState.PAUSED: f"paused: {right} of the last {of} right",
    }.get(RaterState(place.state), "")


def home_words(campaign: Campaign, place: CampaignRater, given: int | None = None) -> str:
    """What the rater should know before they begin; empty where nothing is special. `given` gold answers of their qualification
    round are looked up where the caller does not know; of a place `with_asked` examples are spoken of that come first."""
    if is_asked(place, getattr(place, "asks_up_to", 0)) and not why_refused(place):
        return "The examples of the guidelines have changed. You answer those that changed before you get more."
    if place.state == RaterState.QUALIFYING:
        left = round_left(campaign, place) if given is None else _left_of(campaign, given)
        return (
            f"A qualification round comes first: {campaign.qualification_items} items whose answer is known, of which "
            f"{campaign.qualification_percent}% must be right. {left} are left."
        )
    return why_refused(place)


def event_words(event: CampaignEvent, rater: User | None) -> str:
    """What happened to this rater, as a sentence without an end; empty for events about something else."""
    result = f"{event.detail.get('right')} of {event.detail.get('of')} right"
    return {
        "rater qualified": f"{rater} qualified: {result}",
        "rater did not qualify": f"{rater} did not qualify: {result}",
        "rater paused": f"{rater} was paused: {result}",
        "rater let in": f"{rater} was let in by {event.by}",
        "pause lifted": f"The pause of {rater} was lifted by {event.by}",
        "another round": f"{rater} was given another qualification round by {event.by}",
        "excluded": f"What {rater} said was excluded by {event.by}: {event.detail.get('reason')}",
        "taken in": f"What {rater} said was taken in again by {event.by}: {event.detail.get('reason')}",
        "exclusion counted": f"Verdicts were counted {'without' if event.detail.get('excluded') else 'with'} what {rater} said: "
        f"{event.detail.get('pending')} of the items that they judged are short of judgments",
        "examples passed": f"{rater} passed the examples of revision {event.detail.get('revision')} of the guidelines: {result}",
        "bars": f"How raters qualify and when they are paused was changed by {event.by}",
    }.get(event.kind, "")


def _end_round(campaign: Campaign, place: CampaignRater, share: Share) -> None:
    measure = _measure(share, campaign.qualification_percent)
    if 100 * share.k >= campaign.qualification_percent * share.n:
        _move(place, RaterState.RATING, "rater qualified", place.rater, measure=measure, qualified_at=Now())
    else:
        _move(place, RaterState.UNQUALIFIED, "rater did not qualify", place.rater, measure=measure)


def _measure(share: Share, percent: int) -> dict[str, int]:
    return {"right": share.k, "of": share.n, "percent": percent}


@transaction.atomic
def _move(place: CampaignRater, after: RaterState, kind: str, by: User, **changes: Any) -> bool:
    before: QuerySet[CampaignRater] = CampaignRater.objects.filter(pk=place.pk, state=place.state)
    if not before.update(state=after, **changes):
        return False
    detail = {"rater": place.rater_id, **changes.get("measure", {})}
    CampaignEvent.objects.create(campaign_id=place.campaign_id, kind=kind, by=by, detail=detail)
    place.refresh_from_db(fields=["state", *changes])
    return True
