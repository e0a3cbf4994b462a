"""Accounts: what the database refuses, invitations as the only way in, tokens, and the pages about people."""

from contextlib import suppress
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from django import forms
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test.html import parse_html
from django.utils import timezone

from accounts.api import create_token
from accounts.checks import Checks
from accounts.invitations import invite, open_invitation, revoke
from accounts.models import ApiToken, Invitation, Role, User
from accounts.people import ChangeRefused, save_person
from tests.accounts.factories import make_person
from tests.curation.test_concurrency import together

pytestmark = pytest.mark.django_db
PASSWORD = "a-quiet-blue-teapot"


def test_database_refuses_an_address_in_capitals():
    with pytest.raises(IntegrityError, match="user_email_is_lower_case"), transaction.atomic():
        User.objects.create(email="Someone@example.org")


def test_database_refuses_an_unknown_role():
    with pytest.raises(IntegrityError, match="user_roles_are_known"), transaction.atomic():
        User.objects.create(email="someone@example.org", roles=["emperor"])
    with pytest.raises(IntegrityError, match="invitation_roles_are_known"), transaction.atomic():
        Invitation.objects.create(email="a@example.org", roles=["emperor"], token_hash="x", invited_by=make_person())


def test_addresses_are_kept_in_lower_case_and_found_in_any():
    person = User.objects.create_user(" Ann@Example.org ", PASSWORD)
    assert person.email == "ann@example.org"
    assert User.objects.get_by_natural_key("ANN@example.ORG") == person


def test_signing_in_with_a_password(client):
    person = make_person(Role.RATER, password=PASSWORD)
    response = client.post("/accounts/login/", {"login": person.email.upper(), "password": PASSWORD})
    assert (response.status_code, response["Location"]) == (302, "/")
    assert client.get("/").status_code == 200


def test_wrong_password_and_unknown_address_read_the_same(client):
    person = make_person(Role.RATER, password=PASSWORD)
    texts = []
    for email in [person.email, "nobody@example.org"]:
        response = client.post("/accounts/login/", {"login": email, "password": "wrong-password-1"})
        texts.append(response.content.decode().replace(email, ""))
        assert "not correct" in texts[-1]
    assert len(texts[0]) == len(texts[1])


def test_sign_up_is_closed_without_an_invitation(client):
    page = client.get("/accounts/signup/")
    assert "People join by invitation" in page.content.decode()
    client.post("/accounts/signup/", {"email": "new@example.org", "password1": PASSWORD, "password2": PASSWORD})
    assert not User.objects.filter(email="new@example.org").exists()


def test_invitation_leads_to_an_account_with_its_roles_once(client):
    operator = make_person(Role.OPERATOR)
    invitation, token = invite(email="New@example.org", roles=[Role.CURATOR], invited_by=operator)
    assert token not in {invitation.token_hash, invitation.email}
    assert client.get(f"/invitation/{token}/")["Location"] == "/accounts/signup/?email=new%40example.org"
    assert 'value="new@example.org"' in client.get("/accounts/signup/?email=new%40example.org").content.decode()
    form = {"email": "new@example.org", "password1": PASSWORD, "password2": PASSWORD}
    assert client.post("/accounts/signup/", form).status_code == 302
    person = User.objects.get(email="new@example.org")
    invitation.refresh_from_db()
    assert (person.roles, invitation.accepted_by) == ([Role.CURATOR], person)
    assert open_invitation(token) is None
    # An account without a mail to confirm it may still switch two-factor sign-in on.
    page = client.post(
        "/accounts/reauthenticate/?next=/accounts/2fa/totp/activate/", {"password": PASSWORD}, follow=True
    )
    assert "Activate Authenticator App" in page.content.decode()
    client.logout()
    assert client.get(f"/invitation/{token}/").status_code == 410


def test_invitation_is_for_its_address_only(client):
    _, token = invite(email="new@example.org", roles=[Role.RATER], invited_by=make_person(Role.OPERATOR))
    client.get(f"/invitation/{token}/")
    page = client.post(
        "/accounts/signup/", {"email": "other@example.org", "password1": PASSWORD, "password2": PASSWORD}
    )
    assert "This invitation is for new@example.org." in page.content.decode()
    assert not User.objects.filter(email="other@example.org").exists()


def test_invitations_end_and_can_be_taken_back():
    operator = make_person(Role.OPERATOR)
    old, old_token = invite(email="old@example.org", roles=[Role.RATER], invited_by=operator)
    Invitation.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    taken, taken_token = invite(email="back@example.org", roles=[Role.RATER], invited_by=operator)
    assert (revoke(taken), revoke(taken)) == (True, False)
    assert [open_invitation(token) for token in (old_token, taken_token, "nonsense")] == [None, None, None]


def test_a_new_invitation_takes_the_place_of_the_earlier_one():
    operator = make_person(Role.OPERATOR)
    _, first = invite(email="new@example.org", roles=[Role.RATER], invited_by=operator)
    _, other = invite(email="other@example.org", roles=[Role.RATER], invited_by=operator)
    second_invitation, second = invite(email="New@example.org", roles=[Role.CURATOR], invited_by=operator)
    assert [open_invitation(token) is None for token in (first, other, second)] == [True, False, False]
    assert open_invitation(second) == second_invitation


@pytest.mark.parametrize(
    ("email", "roles", "says"),
    [
        ("a@example.org", [], "Choose at least one role."),
        ("a@example.org", ["emperor"], "Unknown role: emperor."),
        ("there@example.org", ["rater"], "there@example.org already has an account."),
    ],
)
def test_nonsense_invitations_are_refused_with_a_sentence(email, roles, says):
    User.objects.create_user("there@example.org")
    with pytest.raises(ValidationError) as refused:
        invite(email=email, roles=roles, invited_by=make_person(Role.OPERATOR))
    assert refused.value.messages == [says]


def test_people_page_makes_a_link_that_works(client):
    client.force_login(make_person(Role.OPERATOR))
    page = client.post("/people/", {"email": "new@example.org", "roles": ["rater", "curator"]})
    link = page.context["new_link"]["url"]
    assert link in page.content.decode()
    client.logout()
    assert client.get(link).status_code == 302
    assert Invitation.objects.get().roles == ["rater", "curator"]


def test_auditor_reads_the_people_page_and_changes_nothing(client):
    client.force_login(make_person(Role.AUDITOR))
    page = client.get("/people/")
    assert page.status_code == 200
    assert "Make a link" not in page.content.decode()
    assert client.post("/people/", {"email": "new@example.org", "roles": ["rater"]}).status_code == 403
    assert Invitation.objects.count() == 0


def test_operator_changes_a_persons_roles_but_cannot_lock_themselves_out(client):
    operator, rater = make_person(Role.OPERATOR), make_person(Role.RATER, name="Rae")
    client.force_login(operator)
    client.post(f"/people/{rater.pk}/", {"name": "Rae", "roles": ["curator"], "is_active": "on"})
    rater.refresh_from_db()
    assert rater.roles == ["curator"]
    page = client.post(f"/people/{operator.pk}/", {"name": "", "roles": ["rater"], "is_active": "on"})
    assert "You cannot take the operator role from yourself" in page.content.decode()
    page = client.post(f"/people/{operator.pk}/", {"name": "", "roles": ["operator"]})
    assert "You cannot close your own account." in page.content.decode()
    operator.refresh_from_db()
    assert (operator.roles, operator.is_active) == (["operator"], True)


def test_closed_account_is_signed_out_at_once(client):
    person = make_person(Role.RATER)
    client.force_login(person)
    User.objects.filter(pk=person.pk).update(is_active=False)
    assert client.get("/").status_code == 302


@pytest.mark.parametrize(
    ("email", "says"), [("{other}", "is the address of another account"), ("x" * 300 + "@example.org", "characters")]
)
def test_nobody_adds_the_address_of_somebody_else_to_their_account(client, email, says):
    person, other = make_person(Role.RATER), make_person(Role.CURATOR)
    client.force_login(person)
    page = client.post("/accounts/email/", {"email": email.format(other=other.email.upper()), "action_add": "1"})
    assert page.status_code == 200
    assert says in page.content.decode()
    assert not EmailAddress.objects.exclude(email=person.email).exists()


def test_token_is_shown_once_and_only_its_hash_is_kept(client):
    person = make_person(Role.RATER)
    client.force_login(person)
    page = client.post("/account/", {"name": "script", "scopes": ["rate"]})
    token = page.context["new_token"]
    assert token.startswith("atl_")
    assert token not in client.get("/account/").content.decode()
    row = ApiToken.objects.get()
    assert (token in row.token_hash, row.hint) == (False, token[:8])


def test_token_opens_the_api_until_it_is_ended(client):
    person = make_person(Role.RATER)
    token = create_token(person, scopes=["rate"])
    ask = {"headers": {"Authorization": f"Bearer {token}"}}
    assert client.get("/api/campaigns", **ask).status_code == 200
    assert client.get("/api/campaigns").status_code == 401
    assert client.get("/api/campaigns", headers={"Authorization": "Bearer atl_nonsense"}).status_code == 401
    client.force_login(person)
    client.post(f"/account/tokens/{ApiToken.objects.get().pk}/revoke/")
    client.logout()
    assert client.get("/api/campaigns", **ask).status_code == 401


def test_token_of_a_closed_or_run_out_account_is_refused(client):
    person = make_person(Role.RATER)
    token = create_token(person, scopes=["rate"])
    ask = {"headers": {"Authorization": f"Bearer {token}"}}
    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert client.get("/api/campaigns", **ask).status_code == 401
    ApiToken.objects.update(expires_at=None)
    User.objects.filter(pk=person.pk).update(is_active=False)
    assert client.get("/api/campaigns", **ask).status_code == 401


def test_nobody_ends_somebody_elses_token(client):
    create_token(make_person(Role.RATER), scopes=["rate"])
    client.force_login(make_person(Role.OPERATOR))
    assert client.post(f"/account/tokens/{ApiToken.objects.get().pk}/revoke/").status_code == 404
    assert ApiToken.objects.get().revoked_at is None


def test_token_command_prints_one_that_works(client, capsys):
    person = make_person(Role.RATER)
    call_command("token", person.email.upper(), "--scope", "rate")
    token = capsys.readouterr().out.strip()
    assert client.get("/api/campaigns", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    with pytest.raises(CommandError, match="Nobody with the address"):
        call_command("token", "nobody@example.org")


def test_two_factor_page_opens(client):
    client.force_login(make_person(Role.RATER))
    page = client.get("/accounts/2fa/")
    assert page.status_code == 200
    assert "Authenticator App" in page.content.decode()


@pytest.mark.django_db(transaction=True)
def test_of_two_operators_who_demote_each_other_at_once_one_stays():
    first, second = make_person(Role.OPERATOR), make_person(Role.OPERATOR)

    def demote(pair):
        by, other = pair
        other.roles = []
        with suppress(ChangeRefused):
            save_person(other, by=by)

    together(demote, [(first, User.objects.get(pk=second.pk)), (second, User.objects.get(pk=first.pk))])
    assert User.objects.with_role(Role.OPERATOR).count() == 1


@pytest.mark.parametrize("data", [None, {"who": ["2"]}, {"who": ["7"]}])
def test_checks_look_as_djangos_own_boxes(data):
    def markup(widget):
        choices = [(1, "Kim <b>"), (2, "A & B")]
        fields = {"who": forms.MultipleChoiceField(choices=choices, widget=widget, help_text="Some", required=False)}
        return type("Form", (forms.Form,), fields)(data)["who"].as_widget()

    assert parse_html(markup(Checks)) == parse_html(markup(forms.CheckboxSelectMultiple))
