"""What curators do about the order in which a campaign hands out its items."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from accounts.models import Role, User
from accounts.policies import policy
from curation.campaign_forms import OrderForm
from curation.models import Campaign
from curation.order import order_of


@policy(write=[Role.CURATOR])
@require_POST
def campaign_order(request: HttpRequest, slug: str) -> HttpResponse:
    """Choose in which order items are handed out from now on."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    form = OrderForm(request.POST, campaign=found)
    if form.is_valid():
        job = form.save(request.user)
        told = f"Items are handed out in this order now: {order_of(found).in_words}."
        if job is not None:
            told += " There are many, so a job is putting them in order; the page of jobs shows how far it is."
        messages.success(request, told)
    for errors in form.errors.values():
        messages.error(request, str(errors[0]))
    return redirect(found)
