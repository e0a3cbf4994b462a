"""The menu: what each role sees of the rooms."""

from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from accounts.models import Role

EVERYONE = frozenset(Role.values)
TEAM = frozenset({Role.CURATOR, Role.OPERATOR, Role.AUDITOR})
# (URL name, label, icon, roles that see it), in the order of the loop.
PLACES: list[tuple[str, str, str, frozenset[str]]] = [
    ("home", "Home", "house", EVERYONE),
    ("my_work", "My work", "user", frozenset({Role.RATER})),
    ("prompt_sets", "Prompts", "file-text", TEAM),
    ("batches", "Batches", "image-plus", TEAM),
    ("samples", "Samples", "images", TEAM),
    ("campaigns", "Campaigns", "star", TEAM),
    ("datasets", "Datasets", "database", TEAM),
    ("corpora", "Corpora", "archive", TEAM),
    ("recipes", "Recipes", "flask-conical", TEAM),
    ("runs", "Runs", "activity", TEAM),
    ("models", "Models", "boxes", TEAM),
    ("evaluations", "Evaluations", "scale", TEAM),
    ("jobs", "Jobs", "server", TEAM),
    ("people", "People", "users", frozenset({Role.OPERATOR, Role.AUDITOR})),
]


def navigation(request: HttpRequest) -> dict[str, Any]:
    """Template context: `nav`, a list of {url, label, icon, active}, for whoever is signed in."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {"nav": []}
    items = []
    for name, label, icon, roles in PLACES:
        if not (user.is_superuser or roles & set(user.roles)):
            continue
        try:
            url = reverse(name)
        except NoReverseMatch:
            continue
        active = request.path == url if name == "home" else request.path.startswith(url)
        items.append({"url": url, "label": label, "icon": icon, "active": active})
    return {"nav": items}
