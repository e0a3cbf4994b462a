from importlib import import_module

import pytest
from django.db import connection, transaction
from django.db.utils import IntegrityError
from django.test import Client
from django.urls import reverse

from accounts.models import Role
from curation.campaigns import close_campaign
from curation.guidelines import GuidelinesRefused, changes, revise_guidelines
from curation.models import Campaign, GuidelineRevision
from tests.accounts.factories import make_person
from tests.curation.factories import make_campaign, make_curator, make_rater

pytestmark = pytest.mark.django_db
OLD = "# Stickers\n\nAccept a white rim.\nRefuse letters.\n"
NEW = "# Stickers\n\nAccept a thin white rim.\nRefuse letters.\nRefuse frames."


def signed_in(person):
    client = Client()
    client.force_login(person)
    return client


def address(campaign):
    return reverse("campaign_guidelines", args=[campaign.slug])


def rows(campaign):
    return list(campaign.revisions.order_by("number").values_list("number", "text", "change", "by"))


def test_a_change_is_a_revision_beside_the_earlier_ones_and_is_what_raters_read():
    rater, curator = make_rater(), make_curator()
    campaign = make_campaign(guidelines=OLD, raters=[rater])
    client = signed_in(curator)
    form = {"text": NEW.replace("\n", "\r\n"), "change": " Frames  do not pass ", "based_on": 1}
    assert client.post(address(campaign), form).status_code == 302
    assert rows(campaign) == [
        (1, OLD, "As the campaign was set up.", campaign.created_by_id),
        (2, NEW, "Frames do not pass", curator.pk),
    ]
    campaign.refresh_from_db()
    assert campaign.guidelines == NEW
    rating = signed_in(rater).get(reverse("rate", args=[campaign.slug])).content.decode()
    assert "Refuse frames." in rating
    page = client.get(address(campaign)).content.decode()
    assert '<ins><span class="visually-hidden">Added: </span> thin</ins>' in page
    assert "Frames do not pass" in page
    assert "Guidelines changed to revision 2" in client.get(campaign.get_absolute_url()).content.decode()


def test_changes_are_told_by_word_and_give_both_texts_back():
    parts = changes(OLD, NEW)
    assert "".join(part.text for part in parts if part.kind != "added") == OLD
    assert "".join(part.text for part in parts if part.kind != "removed") == f"{NEW}\n"
    assert [part.text for part in parts if part.kind == "added"] == [" thin", "Refuse frames.\n"]
    assert [part.text for part in parts if part.kind == "removed"] == []


def test_text_in_a_diff_is_never_markup():
    campaign = make_campaign(guidelines="plain")
    curator = make_curator()
    revise_guidelines(campaign, "<script>alert(1)</script>", change="<b>bold</b>", based_on=1, by=curator)
    page = signed_in(curator).get(address(campaign)).content.decode()
    assert "<script>alert" not in page
    assert "<b>bold" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_what_somebody_else_saved_meanwhile_is_not_undone_unseen():
    campaign = make_campaign(guidelines=OLD)
    first, second = make_curator(), make_curator()
    revise_guidelines(campaign, NEW, change="Frames", based_on=1, by=first)
    page = signed_in(second).post(address(campaign), {"text": "My own text", "change": "Mine", "based_on": 1})
    text = page.content.decode()
    assert "saved revision 2 meanwhile" in text
    assert "My own text</textarea>" in text
    assert 'name="based_on" value="2"' in text
    assert len(rows(campaign)) == 2
    again = {"text": "My own text", "change": "Mine", "based_on": 2}
    assert signed_in(second).post(address(campaign), again).status_code == 302
    assert [row[1] for row in rows(campaign)] == [OLD, NEW, "My own text"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"text": OLD.replace("\n", "\r\n"), "change": "Nothing"}, "so there is nothing to save"),
        ({"text": NEW, "change": "  "}, "Say in a sentence what you changed"),
        ({"text": NEW, "change": "Frames", "based_on": ""}, "This form is incomplete"),
    ],
)
def test_nonsense_is_refused_with_a_sentence_and_nothing_changes(fields, sentence):
    campaign = make_campaign(guidelines=OLD)
    page = signed_in(make_curator()).post(address(campaign), {"based_on": 1} | fields)
    assert sentence in page.content.decode()
    assert [row[1] for row in rows(campaign)] == [OLD]


def test_a_closed_campaign_keeps_its_guidelines():
    campaign, curator = make_campaign(guidelines=OLD), make_curator()
    close_campaign(campaign, by=curator)
    with pytest.raises(GuidelinesRefused, match="is closed"):
        revise_guidelines(campaign, NEW, change="Frames", based_on=1, by=curator)
    assert [row[1] for row in rows(campaign)] == [OLD]
    assert "<textarea" not in signed_in(curator).get(address(campaign)).content.decode()


def test_only_curators_change_and_only_the_team_reads():
    campaign = make_campaign(guidelines=OLD)
    form = {"text": NEW, "change": "Frames", "based_on": 1}
    seen = {}
    for role in (Role.RATER, Role.OPERATOR, Role.AUDITOR, Role.CURATOR):
        client = signed_in(make_person(role))
        seen[role] = (client.get(address(campaign)).status_code, client.post(address(campaign), form).status_code)
    assert seen == {
        Role.RATER: (403, 403),
        Role.OPERATOR: (200, 403),
        Role.AUDITOR: (200, 403),
        Role.CURATOR: (200, 302),
    }
    assert Client().get(address(campaign)).status_code == 302


def test_older_revisions_are_a_page_further():
    campaign, curator = make_campaign(guidelines="0"), make_curator()
    for number in range(1, 12):
        revise_guidelines(campaign, str(number), change=f"To {number}", based_on=number, by=curator)
    client = signed_in(curator)
    first = client.get(address(campaign)).context
    second = client.get(address(campaign) + first["next_url"]).context
    assert [told.revision.number for told in first["revisions"]] == list(range(12, 2, -1))
    assert [told.revision.number for told in second["revisions"]] == [2, 1]
    assert [part.text for part in first["revisions"][-1].parts] == ["1", "2", "\n"]
    assert second["next_url"] == ""


@pytest.mark.parametrize(
    "change", ["UPDATE curation_guidelinerevision SET text = ''", "DELETE FROM curation_guidelinerevision"]
)
def test_the_database_refuses_to_rewrite_a_revision(change):
    campaign = make_campaign(guidelines=OLD)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change)
    assert [row[1] for row in rows(campaign)] == [OLD]


def test_the_database_keeps_numbers_unique_and_from_one():
    campaign = make_campaign()
    row = {"campaign": campaign, "text": "", "change": "x", "by": campaign.created_by}
    for number, name in ((1, "guideline_revision_once"), (0, "guideline_revision_from_one")):
        with pytest.raises(IntegrityError, match=name), transaction.atomic():
            GuidelineRevision.objects.create(number=number, **row)


def test_what_campaigns_had_before_there_were_revisions_is_their_first():
    curator = make_curator()
    campaign = Campaign.objects.create(slug="old", name="Old", kind="alignment", guidelines=OLD, created_by=curator)
    assert rows(campaign) == []
    with connection.cursor() as cursor:
        cursor.execute(import_module("curation.migrations.0018_guideline_revisions").FILL)
    assert rows(campaign) == [(1, OLD, "As the campaign was set up.", curator.pk)]
    campaign.refresh_from_db()
    assert campaign.revisions.get().at == campaign.created_at
