"""The rating page: everything that the screen needs to start, in one document."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.models import Role, User
from accounts.policies import policy, public
from curation.assignments import done_by, holds_any, left_for
from curation.example_rounds import RoundRefused, is_asked, round_of, with_asked
from curation.grids import has_grid, has_several
from curation.guidelines import newest_revision, reading_of
from curation.keys import keys_of
from curation.models import Campaign, CampaignState
from curation.offline import screen_version, worker_script
from curation.questions import asked_now, question_news
from curation.screen_specs import guidelines_shown, news_specs, round_specs
from curation.standing import why_refused


@policy(read=[Role.RATER])
@require_safe
@never_cache
def rate(request: HttpRequest, slug: str) -> HttpResponse:
    """The rating screen of an open campaign, with `?view=grid` many items at once, or a page that says why there is none now."""
    user = request.user
    assert isinstance(user, User)
    campaign = get_object_or_404(Campaign.objects.with_rater(user), slug=slug)
    if campaign.state != CampaignState.OPEN:
        return render(request, "curation/rate_closed.html", {"campaign": campaign})
    if _asks_first(campaign, user):
        return redirect("rate_examples", slug)
    config = _config(request, campaign, user)
    # One row says both the text and its number, whatever is saved meanwhile.
    newest = newest_revision(campaign)
    config["guideline_revision"] = newest.number if newest else None
    reading = reading_of(campaign, user)
    config["guideline_news"] = news_specs(row for row in reading.news if newest and row.number <= newest.number)
    config["question_news"] = news_specs(question_news(campaign, reading.questions_read, config["question_revision"]))
    as_grid = False
    if has_grid(campaign):
        as_grid = request.GET.get("view") == "grid"
        config["other_view_url"] = request.path if as_grid else f"{request.path}?view=grid"
        config["has_several"] = as_grid and has_several(campaign)
    context = {"campaign": campaign, "config": config, **guidelines_shown(campaign, user, newest)}
    return _to_keep(render(request, "rate/grid.html" if as_grid else "rate/rate.html", context), config)


@public
@require_safe
def rate_worker(request: HttpRequest) -> HttpResponse:
    """The service worker that opens rating pages without a connection; it holds nothing of anybody."""
    response = HttpResponse(worker_script(), content_type="text/javascript")
    response["Cache-Control"] = "no-cache"
    response["Service-Worker-Allowed"] = "/rate/"
    return response


@policy(read=[Role.RATER])
@require_safe
@never_cache
def rate_examples(request: HttpRequest, slug: str) -> HttpResponse:
    """The changed examples of the guidelines, where raters answer those first; below the bar the guidelines to read again."""
    user = request.user
    assert isinstance(user, User)
    campaign = get_object_or_404(Campaign.objects.with_rater(user), slug=slug)
    if campaign.state != CampaignState.OPEN:
        return render(request, "curation/rate_closed.html", {"campaign": campaign})
    try:
        asked = round_of(campaign, user)
    except RoundRefused:
        return redirect("rate", slug)
    if asked.is_over:
        return redirect("rate", slug)
    config = {
        "kind": campaign.kind,
        "questions": asked_now(campaign).questions,
        "keys": keys_of(user),
        "csrf": get_token(request),
        **_of_worker(user),
        "url": reverse("api-1:answer-example", args=[slug]),
        "rate_url": reverse("rate", args=[slug]),
        **round_specs(campaign, user, asked),
    }
    shown = guidelines_shown(campaign, user, asked.revision)
    if asked.last is None:
        # What is about to be asked is not told beforehand.
        to_answer = {row.position for row in asked.examples}
        shown["examples"] = [row for place, row in enumerate(shown["examples"]) if place not in to_answer]
    context = {"campaign": campaign, "config": config, "round": asked, **shown}
    return _to_keep(render(request, "rate/examples.html", context), config)


def _of_worker(user: User) -> dict[str, Any]:
    """What a page tells the worker that is to keep it."""
    return {"user_id": user.pk, "worker_url": reverse("rate_worker"), "files": screen_version()}


def _to_keep(response: HttpResponse, config: dict[str, Any]) -> HttpResponse:
    """The worker keeps what has these, and knows by them whose it is and which files go with it."""
    response["X-Atelier-Rater"] = config["user_id"]
    response["X-Atelier-Files"] = config["files"]
    return response


def _asks_first(campaign: Campaign, user: User) -> bool:
    """Whether examples come first: what the rater holds may be finished before."""
    place = with_asked(campaign.memberships.filter(rater=user)).first()
    if place is None or why_refused(place) or not is_asked(place, place.asks_up_to):
        return False
    return not holds_any(campaign, user)


def _config(request: HttpRequest, campaign: Campaign, user: User) -> dict[str, Any]:
    done, left = done_by(campaign, user), left_for(campaign, user)
    asked = asked_now(campaign)
    return {
        "campaign": campaign.slug,
        "kind": campaign.kind,
        "title": campaign.name,
        "lease_url": reverse("api-1:lease", args=[campaign.slug]),
        "guidelines_read_url": reverse("api-1:guidelines-read", args=[campaign.slug]),
        "judgments_url": reverse("api-1:judgments"),
        "csrf": get_token(request),
        "questions": asked.questions,
        "question_revision": asked.number,
        "progress": {"done": done, "total": done + left, "left_for_me": left},
        "keys": keys_of(user),
        "keys_url": reverse("api-1:rating-keys"),
        **_of_worker(user),
    }
