"""Which revision of the guidelines a rater had before them, with each judgment."""

import json
import re
import uuid

import pytest
from django.test import Client

from curation.assignments import lease_items
from curation.gold import mark_gold
from curation.guidelines import revise_guidelines
from curation.judgments import record_judgments
from curation.models import Assignment, Campaign, Judgment
from curation.statistics import answers_by_revision
from curation.tallies import differences
from tests.curation.factories import judge_all, make_campaign, make_curator, make_rater, make_row

pytestmark = pytest.mark.django_db


@pytest.fixture
def rater():
    return make_rater()


@pytest.fixture
def campaign(rater):
    return make_campaign(items=4, raters=[rater])


def revise(campaign, change="Frames do not pass"):
    number = campaign.revisions.first().number
    text = f"{campaign.guidelines}\n\n{change}."
    return revise_guidelines(campaign, text, change=change, based_on=number, by=make_curator())


def signed_in(person):
    client = Client()
    client.force_login(person)
    return client


def post(client, url, body):
    return client.post(url, json.dumps(body), content_type="application/json")


def lease(client, campaign, count=2, **fields):
    return post(client, f"/api/campaigns/{campaign.slug}/lease", {"count": count, **fields}).json()


def shown():
    """(action, number of the revision) of each judgment, in the order in which they came."""
    return list(Judgment.objects.order_by("received_at").values_list("action", "guideline_revision__number"))


def test_a_lease_and_the_screen_name_the_newest_revision(rater, campaign):
    client = signed_in(rater)
    assert lease(client, campaign)["guideline_revision"] == 1
    revise(campaign)
    assert lease(client, campaign)["guideline_revision"] == 2
    page = client.get(f"/rate/{campaign.slug}/")
    assert page.context["config"]["guideline_revision"] == 2
    assert "Frames do not pass." in page.context["guidelines_html"]


def test_answer_undo_and_correction_each_keep_what_was_shown(rater, campaign):
    held, other = lease_items(campaign, rater, 2)
    revise(campaign)
    first = make_row(held, guideline_revision=1)
    undo = make_row(held, action="undo", supersedes=first["id"], guideline_revision=2)
    again = make_row(held, {"alignment": "fail"}, supersedes=undo["id"], guideline_revision=2)
    correction = make_row(held, supersedes=again["id"], guideline_revision=1)
    skip = make_row(other, action="skip", guideline_revision=2)
    results = record_judgments(rater, [first, undo, again, correction, skip])
    assert {result.status for result in results} == {"stored"}
    assert shown() == [("answer", 1), ("undo", 2), ("answer", 2), ("answer", 1), ("skip", 2)]


def test_a_client_that_says_nothing_gets_what_was_newest_when_its_item_was_leased(rater, campaign):
    before = lease_items(campaign, rater, 1)[0]
    revise(campaign)
    # The first is held on, the second is new.
    held, after = lease_items(campaign, rater, 2)
    assert held.pk == before.pk
    record_judgments(rater, [make_row(held), make_row(after, guideline_revision=None)])
    assert shown() == [("answer", 1), ("answer", 2)]


def test_a_lease_that_is_taken_up_again_has_the_revision_of_that_time(rater, campaign):
    before = lease_items(campaign, rater, 1)[0]
    Assignment.objects.update(expires_at="2026-01-01T00:00:00Z")
    revise(campaign)
    again = lease_items(campaign, rater, 1)[0]
    assert (again.pk, again.guideline_revision.number) == (before.pk, 2)


def test_what_was_leased_before_this_was_kept_is_not_known(rater, campaign):
    held = lease_items(campaign, rater, 1)[0]
    Assignment.objects.update(guideline_revision=None)
    record_judgments(rater, [make_row(held)])
    assert shown() == [("answer", None)]
    sample = held.item.item_samples.get().sample
    assert "guidelines: not known" in signed_in(make_curator()).get(sample.get_absolute_url()).content.decode()


def test_the_samples_page_names_the_revision(rater, campaign):
    held = lease_items(campaign, rater, 1)[0]
    revise(campaign)
    record_judgments(rater, [make_row(held, guideline_revision=2)])
    sample = held.item.item_samples.get().sample
    assert "guidelines: revision 2" in signed_in(make_curator()).get(sample.get_absolute_url()).content.decode()


def test_an_unknown_revision_is_refused_for_its_item_alone(rater, campaign):
    # Another campaign's second revision is none of this one's.
    revise(make_campaign())
    first, second, third, fourth = lease_items(campaign, rater, 4)
    rows = [
        make_row(first, guideline_revision=2),
        make_row(second, guideline_revision=1),
        make_row(third, guideline_revision="1"),
        make_row(fourth, guideline_revision=2**31),
        make_row(fourth, guideline_revision=True),
    ]
    results = record_judgments(rater, rows)
    number = "The guideline_revision must be the number that came with the lease."
    assert [tuple(result)[1:3] for result in results] == [
        ("rejected", "The guidelines of this campaign have no revision 2."),
        ("stored", ""),
        ("rejected", number),
        ("rejected", number),
        ("rejected", number),
    ]
    assert shown() == [("answer", 1)]


def test_each_campaign_of_a_batch_has_its_own_revisions(rater, campaign):
    other: Campaign = make_campaign(raters=[rater])
    revise(campaign)
    mine, others = lease_items(campaign, rater, 1)[0], lease_items(other, rater, 1)[0]
    results = record_judgments(rater, [make_row(mine, guideline_revision=2), make_row(others, guideline_revision=2)])
    assert [result.status for result in results] == ["stored", "rejected"]
    assert Judgment.objects.get().guideline_revision == campaign.revisions.get(number=2)


def test_a_row_that_is_sent_again_is_a_duplicate(rater, campaign):
    held = lease_items(campaign, rater, 1)[0]
    row = make_row(held, id=str(uuid.uuid4()), guideline_revision=1)
    client = signed_in(rater)
    statuses = [post(client, "/api/judgments", {"judgments": [row]}).json()["results"][0]["status"] for _ in range(2)]
    assert statuses == ["stored", "duplicate"]


def test_the_campaign_counts_what_stands_under_each_revision(rater, campaign):
    client = signed_in(campaign.created_by)
    assert (answers_by_revision(campaign), "under each revision" in campaign_page(client, campaign)) == ([], False)
    held = lease_items(campaign, rater, 4)
    revise(campaign)
    rows = [make_row(each, guideline_revision=number) for each, number in zip(held, (1, 1, 2), strict=False)]
    again = make_row(held[0], {"alignment": "fail"}, supersedes=rows[0]["id"], guideline_revision=2)
    skip = make_row(held[1], action="skip", supersedes=rows[1]["id"], guideline_revision=2)
    record_judgments(rater, [*rows, again, skip])
    assert answers_by_revision(campaign) == [(2, 2)]
    Assignment.objects.update(guideline_revision=None)
    record_judgments(rater, [make_row(held[3])])
    record_judgments(rater, [make_row(held[1], supersedes=skip["id"], guideline_revision=1)])
    assert answers_by_revision(campaign) == [(2, 2), (1, 1), (None, 1)]
    assert differences(campaign) == []
    facts = re.findall(r"<dt>(Revision \d+|Not known)</dt><dd>(\d+)</dd>", campaign_page(client, campaign))
    assert facts == [("Revision 2", "2"), ("Revision 1", "1"), ("Not known", "1")]


def test_answers_to_gold_items_do_not_count_there(rater, campaign):
    assert judge_all(campaign, rater) == 4
    mark_gold(campaign.items.first(), {"alignment": "pass"}, by=campaign.created_by)
    assert answers_by_revision(campaign) == [(1, 3)]
    assert differences(campaign) == []


def campaign_page(client, campaign):
    return client.get(campaign.get_absolute_url()).content.decode()
