"""What curators do about one rater of a campaign."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from accounts.models import Role, User
from accounts.policies import policy
from curation.gold import GoldRefused
from curation.models import Campaign, CampaignRater
from curation.standing import give_round, let_in


@policy(write=[Role.CURATOR])
@require_POST
def rater_let_in(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Let a rater go on who is paused, or has not qualified."""
    place = _place(request, slug, pk)
    if let_in(place, by=_user(request)):
        messages.success(request, f"{place.rater} may rate. What they are measured by begins anew.")
    else:
        messages.info(request, f"Nothing kept {place.rater} from rating any more.")
    return redirect(place.campaign)


@policy(write=[Role.CURATOR])
@require_POST
def rater_round(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Give a rater another qualification round."""
    place = _place(request, slug, pk)
    try:
        given = give_round(place, by=_user(request))
    except GoldRefused as refused:
        messages.error(request, refused.args[0])
        return redirect(place.campaign)
    if given:
        messages.success(request, f"{place.rater} gets another qualification round.")
    else:
        messages.info(request, f"{place.rater} needs no round here any more.")
    return redirect(place.campaign)


def _place(request: HttpRequest, slug: str, pk: int) -> CampaignRater:
    campaign = get_object_or_404(Campaign.objects.visible_to(_user(request)), slug=slug)
    places = CampaignRater.objects.filter(campaign=campaign).select_related("campaign", "rater")
    return get_object_or_404(places, rater=pk)


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
