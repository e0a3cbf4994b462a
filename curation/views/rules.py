"""What curators do about the rule of a campaign: choose another, and count anew."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from accounts.models import Role, User
from accounts.policies import policy
from curation.campaign_forms import RuleForm
from curation.models import Campaign
from curation.recounts import recount
from curation.rules import RuleRefused, read_rule
from jobs.models import Job


@policy(write=[Role.CURATOR])
@require_POST
def campaign_rule(request: HttpRequest, slug: str) -> HttpResponse:
    """Choose the rule by which judgments become verdicts, all of them anew."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    form = RuleForm(request.POST, campaign=found)
    if form.is_valid() and form.save(request.user):
        messages.success(
            request, f"The rule is: {read_rule(found.rule).in_words(found.compares)}. {_how(found.recount_job)}"
        )
    for errors in form.errors.values():
        messages.error(request, str(errors[0]))
    return redirect(found)


@policy(write=[Role.CURATOR])
@require_POST
def campaign_recount(request: HttpRequest, slug: str) -> HttpResponse:
    """Count all verdicts anew, and so estimate what is estimated."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    try:
        messages.success(request, _how(recount(found, by=request.user)))
    except RuleRefused as refused:
        messages.error(request, refused.args[0])
    return redirect(found)


def _how(job: Job | None) -> str:
    if job is None or not job.is_open:
        return "All verdicts were counted anew."
    return "All verdicts are being counted anew; this page shows how far it is."
