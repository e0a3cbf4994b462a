"""A rater's own page."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.models import Role, User
from accounts.policies import policy
from curation.work import DAYS, LEAST_COMPARED, desk_of


@policy(read=[Role.RATER])
@require_safe
def my_work(request: HttpRequest) -> HttpResponse:
    """One's own work: what waits, what one judged and how fast, and how one agrees with others and with known answers."""
    assert isinstance(request.user, User)
    context = {"desk": desk_of(request.user), "span": DAYS, "least_compared": LEAST_COMPARED}
    return render(request, "curation/my_work.html", context)
