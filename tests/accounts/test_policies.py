"""Every URL declares who may open it, and the declaration holds."""

from collections.abc import Iterator

import pytest
from django.http import HttpRequest
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from accounts.models import Role
from accounts.policies import Policy, declared_policy
from tests.accounts.factories import make_person
from tests.curation.factories import make_campaign

pytestmark = pytest.mark.django_db


def all_patterns(
    resolver: URLResolver, prefix: str = "", namespaces: tuple[str, ...] = ()
) -> Iterator[tuple[str, URLPattern, tuple[str, ...]]]:
    for pattern in resolver.url_patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            inner = (*namespaces, pattern.namespace) if pattern.namespace else namespaces
            yield from all_patterns(pattern, path, inner)
        else:
            yield path, pattern, namespaces


def test_every_url_declares_its_policy():
    found = list(all_patterns(get_resolver()))
    assert len(found) > 60
    undeclared = [
        path for path, pattern, spaces in found if declared_policy(pattern.callback, spaces, pattern.name) is None
    ]
    assert undeclared == []


def test_own_views_are_closed_to_whoever_is_not_signed_in(client):
    """Whatever has no argument in its path and is not public sends a stranger to the sign-in page."""
    opened = []
    for path, pattern, spaces in all_patterns(get_resolver()):
        rule = declared_policy(pattern.callback, spaces, pattern.name)
        if rule is None or rule.public or rule.self_guarded or "<" in path or "(" in path or spaces:
            continue
        response = client.get("/" + path)
        if response.status_code not in {302, 405} or (
            response.status_code == 302 and not response["Location"].startswith("/accounts/login/")
        ):
            opened.append((path, response.status_code))
    assert opened == []


@pytest.mark.parametrize("role", [*Role.values, None])
def test_policy_lets_auditors_read_and_nobody_but_the_named_write(role):
    person = make_person(*([role] if role else []))
    rule = Policy(read=frozenset({Role.CURATOR}), write=frozenset({Role.OPERATOR}))
    assert rule.allows(person, "GET") == (role in {Role.CURATOR, Role.OPERATOR, Role.AUDITOR})
    assert rule.allows(person, "POST") == (role == Role.OPERATOR)


def test_view_without_a_policy_stays_closed(client, settings):
    def bare(request: HttpRequest) -> None:
        raise AssertionError("The view must not run.")

    assert declared_policy(bare, (), "bare") is None


def test_htmx_request_of_a_stranger_is_sent_to_the_sign_in_page(client):
    response = client.get("/people/", headers={"HX-Request": "true"})
    assert (response.status_code, response["HX-Redirect"]) == (401, "/accounts/login/")


def test_rater_gets_no_team_page(client):
    client.force_login(make_person(Role.RATER))
    closed = {path: client.get(path).status_code for path in ["/people/", "/jobs/", "/batches/", "/models/", "/runs/"]}
    assert closed == dict.fromkeys(closed, 403)


def test_pages_carry_a_content_security_policy_without_inline_code(client):
    policy = client.get("/accounts/login/")["Content-Security-Policy"]
    assert "unsafe-inline" not in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'self'" in policy
    assert "default-src 'none'" in policy


def test_no_cache_keeps_a_page_for_somebody_else(client):
    client.force_login(make_person(*Role.values))
    pages = ["/", "/jobs/", "/api/campaigns"]
    assert {client.get(page)["Cache-Control"] for page in pages} == {"private, no-cache"}
    for page in ("/people/", "/account/"):
        assert "no-store" in client.get(page)["Cache-Control"]


def test_no_refusal_is_shown_again_on_the_way_back(client):
    assert "no-store" in client.get("/nowhere/")["Cache-Control"]
    rater = make_person(Role.RATER)
    campaign = make_campaign(raters=[rater])
    client.force_login(make_person(Role.AUDITOR))
    refused = client.get(reverse("rate", args=[campaign.slug]))
    assert refused.status_code in (403, 404)
    assert "no-store" in refused["Cache-Control"]


def test_head_is_answered_wherever_get_is(client):
    client.force_login(make_person(*Role.values))
    pages = ["/", "/account/", "/people/", "/recipes/", "/recipes/new/", "/runs/", "/evaluations/", "/campaigns/"]
    answers = {page: client.head(page).status_code for page in pages}
    assert answers == dict.fromkeys(pages, 200)
