"""What a rater is told of a change of the guidelines: once, on whatever device, and nothing of what was before they began."""

from importlib import import_module

import pytest
from django.db import connection

from curation.assignments import lease_items
from curation.models import CampaignRater
from tests.curation.factories import make_campaign, make_rater
from tests.curation.test_guidelines_shown import lease, post, revise, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def rater():
    return make_rater()


@pytest.fixture
def campaign(rater):
    return make_campaign(items=4, raters=[rater], guidelines="Accept a white rim.")


def read(client, campaign, number):
    return post(client, f"/api/campaigns/{campaign.slug}/guidelines-read", {"guideline_revision": number})


def told(client, campaign, **fields):
    answer = lease(client, campaign, **fields)
    return [(news["revision"], news["change"]) for news in answer["guideline_news"]]


def on_the_page(client, campaign):
    config = client.get(f"/rate/{campaign.slug}/").context["config"]
    return [news["revision"] for news in config["guideline_news"]]


def test_each_change_is_told_until_it_was_read_and_then_no_more(rater, campaign):
    client = signed_in(rater)
    assert told(client, campaign) == []
    revise(campaign, "Frames do not pass")
    revise(campaign, "Letters do not pass")
    both = [(2, "Frames do not pass"), (3, "Letters do not pass")]
    assert told(client, campaign) == told(client, campaign) == both
    assert on_the_page(client, campaign) == [2, 3]
    assert read(client, campaign, 2).status_code == 204
    assert (told(client, campaign), on_the_page(signed_in(rater), campaign)) == (both[1:], [3])
    read(client, campaign, 3)
    # What comes late takes nothing back.
    read(client, campaign, 1)
    assert (told(client, campaign), on_the_page(client, campaign)) == ([], [])


def test_who_begins_after_a_change_is_told_nothing_and_who_began_before_it_is(campaign, rater):
    late = make_rater()
    CampaignRater.objects.create(campaign=campaign, rater=late)
    told(signed_in(rater), campaign)
    revise(campaign)
    client = signed_in(late)
    assert (on_the_page(client, campaign), told(client, campaign)) == ([], [])
    assert told(signed_in(rater), campaign) == [(2, "Frames do not pass")]
    revise(campaign, "Letters do not pass")
    assert told(client, campaign) == [(3, "Letters do not pass")]


def test_who_begins_on_a_screen_that_was_opened_before_a_change_is_told(rater, campaign):
    revise(campaign)
    assert told(signed_in(rater), campaign, guideline_revision=1) == [(2, "Frames do not pass")]


def test_a_lease_brings_the_new_text_to_a_screen_that_shows_an_older_one(rater, campaign):
    client = signed_in(rater)
    revise(campaign)
    text = '<div class="prose"><p>Accept a white rim.</p>\n<p>Frames do not pass.</p>\n</div>'
    asked = [1, 2, 9, None]
    texts = [lease(client, campaign, guideline_revision=number)["guidelines_html"] for number in asked]
    assert [html and html.strip() for html in texts] == [text, None, None, None]


def test_one_rater_reads_for_nobody_else(rater, campaign):
    other = make_rater()
    CampaignRater.objects.create(campaign=campaign, rater=other)
    clients = [signed_in(rater), signed_in(other)]
    for client in clients:
        told(client, campaign)
    revise(campaign)
    read(clients[0], campaign, 2)
    assert [told(client, campaign) for client in clients] == [[], [(2, "Frames do not pass")]]


def test_only_raters_of_the_campaign_read_there_and_only_what_there_is(rater, campaign):
    client = signed_in(rater)
    answer = read(client, campaign, 2)
    assert (answer.status_code, answer.json()) == (
        422,
        {"detail": "The guidelines of this campaign have no revision 2."},
    )
    assert [read(client, campaign, wrong).status_code for wrong in (0, -1, 2**31, "x", None)] == [422] * 5
    assert read(signed_in(make_rater()), campaign, 1).status_code == 404
    assert CampaignRater.objects.get(rater=rater).guidelines_read is None


def test_who_was_handed_items_before_this_was_kept_knows_the_first_revision(rater, campaign):
    CampaignRater.objects.create(campaign=campaign, rater=make_rater())
    lease_items(campaign, rater, 1)
    with connection.cursor() as cursor:
        cursor.execute(import_module("curation.migrations.0021_guidelines_read").FILL)
    places = CampaignRater.objects.order_by("pk").values_list("guidelines_read", flat=True)
    assert list(places) == [1, None]
