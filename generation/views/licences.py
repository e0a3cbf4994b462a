"""Saying under which licence something is: a model version, or the images of a corpus."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from generation.forms import LicenceForm


def take_licence(request: HttpRequest, thing: Any) -> HttpResponse:
    """Keep the `licence` that was posted, an empty one where it is not known, and go back to the thing's page."""
    form = LicenceForm(request.POST)
    if form.is_valid():
        thing.licence = form.cleaned_data["licence"]
        thing.save(update_fields=["licence"])
        messages.success(request, f"The licence of {thing} is {thing.licence or 'not known'}.")
    else:
        messages.error(request, "The licence is too long: at most 200 characters. Nothing was changed.")
    return redirect(thing)
