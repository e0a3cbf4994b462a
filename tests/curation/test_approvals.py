"""Approvals of frozen versions: who may say what, when, and that nothing of it is lost or said over what nobody saw."""

import pytest
from django.db import DatabaseError, IntegrityError, transaction
from django.urls import reverse

from accounts.models import Role
from curation.approvals import ApprovalRefused, not_approved, say, standing_of
from curation.datasets import freeze
from curation.models import Approval, DatasetVersion
from tests.accounts.factories import make_person
from tests.curation.factories import judge_all, make_campaign, make_curator, make_dataset, make_rater

pytestmark = pytest.mark.django_db


@pytest.fixture
def version():
    rater = make_rater()
    campaign = make_campaign(items=3, raters=[rater])
    judge_all(campaign, rater)
    return freeze(make_dataset(campaign), by=make_curator())


def acts(version: DatasetVersion) -> list[str]:
    return list(version.approvals.order_by("pk").values_list("act", flat=True))


def test_a_frozen_version_is_not_approved_until_somebody_approves_it(version):
    curator = make_curator()
    assert not_approved([version.pk]) == [version]
    assert standing_of(version, curator).label == "Not approved yet"
    say(version, "asked", by=curator)
    assert list(DatasetVersion.objects.waiting()) == not_approved([version.pk]) == [version]
    say(version, "approved", by=make_person(Role.OPERATOR), note="Looks right.")
    assert (not_approved([version.pk]), list(DatasetVersion.objects.waiting())) == ([], [])
    assert standing_of(version, curator).is_approved


def test_what_can_be_said_depends_on_what_was_said(version):
    curator = make_curator()
    for act, following in [
        ("asked", {"approved", "refused"}),
        ("refused", {"approved", "asked"}),
        ("approved", {"withdrawn"}),
        ("withdrawn", {"approved", "asked"}),
    ]:
        say(version, act, by=curator, note="Because.")
        assert set(standing_of(version, curator).offered) == following
        for other in {"asked", "approved", "refused", "withdrawn"} - following:
            with pytest.raises(ApprovalRefused, match="cannot be said"):
                say(version, other, by=curator, note="Because.")
    assert acts(version) == ["asked", "refused", "approved", "withdrawn"]


@pytest.mark.parametrize(("act", "note", "sentence"), [
    ("refused", " ", "Say why"),
    ("approved", "x" * 301, "too long"),
    ("praised", "", "approved or refused"),
])  # fmt: skip
def test_nonsense_is_refused_with_a_sentence(version, act, note, sentence):
    say(version, "asked", by=make_curator())
    with pytest.raises(ApprovalRefused, match=sentence):
        say(version, act, by=make_curator(), note=note)
    assert acts(version) == ["asked"]


def test_nobody_decides_over_what_they_have_not_seen(version):
    asked = say(version, "asked", by=make_curator(), seen=0)
    say(version, "refused", by=make_curator(), note="Halos.", seen=asked.pk)
    with pytest.raises(ApprovalRefused, match="Somebody was faster: it was refused by"):
        say(version, "approved", by=make_curator(), seen=asked.pk)
    assert acts(version) == ["asked", "refused"]


def test_another_person_has_to_approve_where_the_team_wants_it(version, settings):
    settings.APPROVAL_BY_ANOTHER = True
    standing = standing_of(version, version.frozen_by)
    assert standing.offered == ("asked",)
    assert "Somebody else" in standing.why_not
    with pytest.raises(ApprovalRefused, match="Somebody else"):
        say(version, "approved", by=version.frozen_by)
    say(version, "approved", by=make_curator())
    assert acts(version) == ["approved"]


def test_the_database_keeps_what_was_said(version):
    said = say(version, "approved", by=make_curator())
    for change in (
        lambda: Approval.objects.filter(pk=said.pk).update(act="asked"),
        lambda: Approval.objects.filter(pk=said.pk)._raw_delete("default"),
    ):
        with pytest.raises(DatabaseError, match=r"append-only|never"), transaction.atomic():
            change()
    with pytest.raises(IntegrityError), transaction.atomic():
        Approval.objects.create(version=version, act="refused", by=version.frozen_by)


def test_page_offers_each_role_what_it_may_say(client, version):
    def page_of(person):
        client.force_login(person)
        return client.get(version.get_absolute_url()).content.decode()

    address = reverse("dataset_approval", args=[version.dataset.slug, version.number])
    auditor = make_person(Role.AUDITOR)
    assert "Not approved" in page_of(auditor)
    assert 'name="act"' not in page_of(auditor)
    assert client.post(address, {"act": "approved"}).status_code == 403

    operator = make_person(Role.OPERATOR)
    # What the Enter key in the note would press is not the approval.
    assert page_of(operator).index('value="asked"') < page_of(operator).index('value="approved"')
    response = client.post(address, {"act": "approved", "note": "For the spring set.", "seen": "0"}, follow=True)
    assert "Runs may learn from it." in response.content.decode()
    assert "For the spring set." in page_of(auditor)
    client.force_login(operator)
    response = client.post(address, {"act": "withdrawn", "seen": "0"}, follow=True)
    assert "Somebody was faster" in response.content.decode()
    assert acts(version) == ["approved"]


def test_home_shows_what_waits_to_those_who_may_approve(client, version):
    say(version, "asked", by=version.frozen_by)
    for role, shown in [(Role.OPERATOR, True), (Role.CURATOR, True), (Role.AUDITOR, False)]:
        client.force_login(make_person(role))
        assert ("Waits for approval" in client.get("/").content.decode()) is shown
