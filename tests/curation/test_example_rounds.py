"""Examples that raters answer before they get more: who is asked, what they are told, and what passes."""

import pytest
from django.db import connection, transaction
from django.db.utils import IntegrityError

from curation.assignments import ExamplesFirst, lease_items, left_for
from curation.campaigns import create_compare_campaign, create_pick_campaign, pause_campaign
from curation.example_rounds import round_of
from curation.examples import as_examples, examples_of
from curation.gold import mark_gold
from curation.guidelines import GuidelinesRefused, revise_guidelines
from curation.judgments import record_judgments
from curation.models import Assignment, CampaignRater, ExampleAnswer, ExampleRound, Judgment, RaterState
from curation.standing import set_bars
from tests.accounts.factories import make_person
from tests.curation.factories import add_example, make_batch, make_campaign, make_curator, make_rater, make_row
from tests.curation.test_concurrency import together
from tests.curation.test_guidelines_shown import post, signed_in
from tests.curation.test_leases import make_pairs

pytestmark = pytest.mark.django_db
PASS, FAIL = {"alignment": "pass"}, {"alignment": "fail"}


@pytest.fixture
def rater():
    return make_rater()


@pytest.fixture
def campaign(rater):
    return make_campaign(items=6, raters=[rater], guidelines="Accept a white rim.")


def other_sample():
    return make_batch(captions=["an owl"]).samples.get()


def address(campaign):
    return f"/api/campaigns/{campaign.slug}/examples"


def lease(client, campaign, count=2):
    return post(client, f"/api/campaigns/{campaign.slug}/lease", {"count": count})


def answer_all(client, campaign, answers=PASS):
    """Answers what is left, and what was told of each."""
    asked = client.get(address(campaign)).json()
    return [
        post(
            client, address(campaign), {"example": row["example"], "attempt": asked["attempt"], "answers": answers}
        ).json()
        for row in asked["examples"]
    ]


def test_a_rater_answers_the_changed_examples_and_only_then_gets_more(rater, campaign):
    client = signed_in(rater)
    add_example(campaign, other_sample())
    add_example(campaign, other_sample(), why="The rim is white", asks_percent=100)
    refused = lease(client, campaign)
    assert (refused.status_code, refused.json()["examples_url"]) == (409, f"/rate/{campaign.slug}/examples/")
    assert client.get(f"/rate/{campaign.slug}/").headers["Location"] == f"/rate/{campaign.slug}/examples/"
    asked = client.get(address(campaign)).json()
    assert (len(asked["examples"]), asked["of"], asked["percent"], asked["attempt"]) == (1, 1, 100, 1)
    assert set(asked["examples"][0]) == {"example", "prompt", "images"}
    told = answer_all(client, campaign)
    ended = {"passed": True, "right": 1, "of": 1, "percent": 100}
    assert told == [{"right": True, "said": ["Pass"], "why": "The rim is white", "left": 0, "ended": ended}]
    assert len(lease(client, campaign).json()["items"]) == 2
    assert client.get(address(campaign)).json()["examples"] == []
    assert CampaignRater.objects.get(rater=rater).examples_passed == 3


def test_below_the_bar_they_read_and_try_again_and_the_curator_sees_when_they_passed(rater, campaign):
    client = signed_in(rater)
    add_example(campaign, other_sample(), asks_percent=80)
    page = client.get(f"/rate/{campaign.slug}/examples/")
    assert (page.context["examples"], "As it should be" in page.content.decode()) == ([], False)
    assert [(told["right"], told["ended"]["passed"]) for told in answer_all(client, campaign, FAIL)] == [(False, False)]
    assert lease(client, campaign).status_code == 409
    page = client.get(f"/rate/{campaign.slug}/examples/")
    assert ("0 of 1 were right" in page.content.decode(), len(page.context["examples"])) == (True, 1)
    curator = signed_in(make_curator())
    passing = curator.get(f"/campaigns/{campaign.slug}/guidelines/").context["revisions"][0].passing
    assert [(each.rater, each.attempts, each.last.passed, each.is_waited_for) for each in passing] == [
        (rater, 1, False, True)
    ]
    assert [told["ended"]["passed"] for told in answer_all(client, campaign)] == [True]
    assert list(ExampleRound.objects.values_list("attempt", "right", "of", "passed")) == [
        (1, 0, 1, False),
        (2, 1, 1, True),
    ]
    passing = curator.get(f"/campaigns/{campaign.slug}/guidelines/").context["revisions"][0].passing
    assert [(each.attempts, each.last.passed, each.is_waited_for) for each in passing] == [(2, True, False)]
    assert f"{rater} passed the examples of revision 2" in curator.get(campaign.get_absolute_url()).content.decode()


def test_what_is_in_hand_may_be_finished_and_keeps_the_revision_that_the_page_showed(rater, campaign):
    client = signed_in(rater)
    held = lease(client, campaign).json()["items"]
    add_example(campaign, other_sample(), asks_percent=80)
    again = lease(client, campaign, 5).json()["items"]
    assert [row["assignment"] for row in again] == [row["assignment"] for row in held]
    assert client.get(f"/rate/{campaign.slug}/").status_code == 200
    assert left_for(campaign, rater) == 2
    rows = [make_row(row["assignment"], guideline_revision=1) for row in held]
    assert {result.status for result in record_judgments(rater, rows)} == {"stored"}
    assert list(Judgment.objects.values_list("guideline_revision__number", flat=True)) == [1, 1]
    assert (lease(client, campaign).status_code, left_for(campaign, rater)) == (409, 0)
    answer_all(client, campaign)
    lease(client, campaign)
    newer = Assignment.objects.filter(state="leased").values_list("guideline_revision__number", flat=True)
    assert list(newer) == [2, 2]


def test_a_revision_that_does_not_ask_leaves_the_round_as_it_is(rater, campaign):
    client, owl = signed_in(rater), other_sample()
    add_example(campaign, owl, asks_percent=100)
    add_example(campaign, other_sample(), asks_percent=50)
    asked = client.get(address(campaign)).json()
    first = {"example": asked["examples"][0]["example"], "attempt": 1, "answers": PASS}
    assert post(client, address(campaign), first).json()["left"] == 1
    # A text that changes meanwhile has the same examples, and what was answered is answered.
    newest = campaign.revisions.first()
    revise_guidelines(campaign, "Another text", change="Text", based_on=newest.number, by=campaign.created_by)
    left = client.get(address(campaign)).json()
    assert (len(left["examples"]), left["of"], left["right"], left["percent"]) == (1, 2, 1, 50)
    assert answer_all(client, campaign, FAIL)[0]["ended"]["passed"]
    assert lease(client, campaign).status_code == 200
    # What comes later is asked alone.
    add_example(campaign, owl, why="Another reason", asks_percent=100)
    assert client.get(address(campaign)).json()["of"] == 1


def test_examples_that_are_left_out_again_are_asked_of_nobody(rater, campaign):
    client = signed_in(rater)
    kept = add_example(campaign, other_sample(), asks_percent=100)
    add_example(campaign, other_sample(), asks_percent=100)
    asked = client.get(address(campaign)).json()
    post(client, address(campaign), {"example": asked["examples"][0]["example"], "attempt": 1, "answers": PASS})
    # The one that was still to be answered goes: what was answered ends the round.
    only = as_examples(examples_of(kept))
    revise_guidelines(campaign, "x", change="One less", based_on=3, by=campaign.created_by, examples=only)
    assert client.get(f"/rate/{campaign.slug}/examples/").headers["Location"] == f"/rate/{campaign.slug}/"
    assert (lease(client, campaign).status_code, ExampleRound.objects.get().of) == (200, 1)
    add_example(campaign, other_sample(), asks_percent=100)
    revise_guidelines(campaign, "y", change="None", based_on=5, by=campaign.created_by, examples=[])
    assert lease(client, campaign).status_code == 200


def test_an_answer_that_is_sent_again_changes_nothing_and_one_of_before_is_refused(rater, campaign):
    client = signed_in(rater)
    add_example(campaign, other_sample(), asks_percent=100)
    sent = {"example": client.get(address(campaign)).json()["examples"][0]["example"], "attempt": 1, "answers": FAIL}
    first = post(client, address(campaign), sent).json()
    assert post(client, address(campaign), sent | {"answers": PASS}).json()["right"] is first["right"] is False
    assert (ExampleAnswer.objects.count(), ExampleRound.objects.count()) == (1, 1)
    assert post(client, address(campaign), sent | {"attempt": 3}).status_code == 409
    refused = [
        post(client, address(campaign), sent | {"attempt": 2, "answers": given}) for given in ({}, {"alignment": "x"})
    ]
    assert [answer.status_code for answer in refused] == [422, 422]
    assert "is no choice of the question" in refused[1].json()["detail"]
    pause_campaign(campaign, by=campaign.created_by)
    assert post(client, address(campaign), sent | {"attempt": 2}).status_code == 409
    assert ExampleAnswer.objects.count() == 1


def test_only_raters_of_the_campaign_are_asked(campaign):
    add_example(campaign, other_sample(), asks_percent=100)
    for person in (make_rater(), make_curator()):
        client = signed_in(person)
        assert client.get(address(campaign)).status_code == 404
        assert post(client, address(campaign), {"example": 1, "attempt": 1, "answers": PASS}).status_code == 404
    assert signed_in(make_rater()).get(f"/rate/{campaign.slug}/examples/").status_code == 404
    assert signed_in(make_person("operator")).get(f"/rate/{campaign.slug}/examples/").status_code == 403


def test_a_qualification_round_comes_after_the_examples(rater, campaign):
    for item in campaign.items.order_by("position")[:2]:
        mark_gold(item, PASS, by=campaign.created_by)
    bars = {"qualification_items": 2, "qualification_percent": 50, "pause_window": 0, "pause_percent": 70}
    set_bars(campaign, **bars, by=campaign.created_by)
    add_example(campaign, other_sample(), asks_percent=100)
    with pytest.raises(ExamplesFirst):
        lease_items(campaign, rater, 5)
    assert CampaignRater.objects.get(rater=rater).state == RaterState.QUALIFYING
    answer_all(signed_in(rater), campaign)
    assert {row.item.is_gold for row in lease_items(campaign, rater, 5)} == {True}


def test_my_work_and_the_first_page_say_that_examples_come_first(rater, campaign):
    client = signed_in(rater)
    add_example(campaign, other_sample(), asks_percent=100)
    assert "You answer those that changed before you get more" in client.get("/").content.decode()
    assert "Answer the changed examples" in client.get("/my-work/").content.decode()
    answer_all(client, campaign)
    assert "Answer the changed examples" not in client.get("/my-work/").content.decode()


def test_a_pair_is_answered_by_its_sides_as_they_are_shown(rater):
    campaign = create_compare_campaign("Pairs", make_pairs(2), by=make_curator(), raters=[rater])
    one, two = other_sample(), other_sample()
    add_example(campaign, one, two, answers={"preference": "right"}, asks_percent=100)
    client = signed_in(rater)
    assert len(client.get(address(campaign)).json()["examples"][0]["images"]) == 2
    assert answer_all(client, campaign, {"preference": "left"})[0]["said"] == ["Right"]
    assert answer_all(client, campaign, {"preference": "right"})[0]["ended"]["passed"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"asks_percent": 0}, "Between 1 and 100%"),
        ({"asks_percent": 50, "examples": []}, "none that raters could answer"),
    ],
)
def test_a_round_that_cannot_be_is_refused(campaign, fields, sentence):
    whole = {"change": "x", "based_on": 1, "by": campaign.created_by}
    with pytest.raises(GuidelinesRefused, match=sentence):
        revise_guidelines(campaign, "x", **whole | fields)
    assert campaign.revisions.count() == 1


def test_a_pick_asks_for_no_examples_first(rater):
    batch = make_batch(["a cat"], each=3)
    campaign = create_pick_campaign("Best", by=make_curator(), batches=[batch], raters=[rater], open_now=True)
    with pytest.raises(GuidelinesRefused, match="choose among several"):
        add_example(campaign, other_sample(), asks_percent=100)


def test_the_form_asks_with_its_own_bar(campaign):
    client, owl = signed_in(make_curator()), other_sample()
    form = {
        "text": campaign.guidelines,
        "change": "An owl",
        "based_on": 1,
        "asks": "on",
        "asks_percent": "",
        "examples-TOTAL_FORMS": 1,
        "examples-INITIAL_FORMS": 0,
        "examples-0-samples": owl.pk,
        "examples-0-answer_alignment": "pass",
        "examples-0-why": "An owl",
    }
    url = f"/campaigns/{campaign.slug}/guidelines/"
    assert "Say how many of them have to be right." in client.post(url, form).content.decode()
    assert client.post(url, form | {"asks_percent": 60}).status_code == 302
    newest = campaign.revisions.first()
    assert (newest.asks, newest.asks_percent, newest.examples.get().asked_since) == (True, 60, 2)


@pytest.mark.parametrize("table", ["exampleanswer", "exampleround"])
def test_the_database_refuses_to_rewrite_what_raters_answered(rater, campaign, table):
    add_example(campaign, other_sample(), asks_percent=100)
    answer_all(signed_in(rater), campaign)
    for change in (f"UPDATE curation_{table} SET attempt = 9", f"DELETE FROM curation_{table}"):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(change)


def test_the_database_keeps_each_answer_and_each_attempt_once_and_bars_in_range(rater, campaign):
    revision = add_example(campaign, other_sample(), asks_percent=100)
    answer_all(signed_in(rater), campaign, FAIL)
    given, ended = ExampleAnswer.objects.get(), ExampleRound.objects.get()
    for row, name in ((given, "example_answer_once"), (ended, "example_round_once")):
        row.pk = None
        with pytest.raises(IntegrityError, match=name), transaction.atomic():
            row.save(force_insert=True)
    revision.pk, revision.number, revision.asks_percent = None, 9, 0
    with pytest.raises(IntegrityError, match="guideline_revision_asks_in_range"), transaction.atomic():
        revision.save(force_insert=True)


@pytest.mark.django_db(transaction=True)
def test_nobody_is_handed_anything_under_a_revision_whose_examples_they_have_not_passed():
    raters = [make_rater() for _ in range(4)]
    campaign = make_campaign(items=60, raters=raters, overlap=3)
    owl = other_sample()

    def work(person):
        if person is None:
            return add_example(campaign, owl, asks_percent=100).number
        stored = 0
        for _ in range(6):
            try:
                held = lease_items(campaign, person, 3)
            except ExamplesFirst:
                break
            results = record_judgments(person, [make_row(row, guideline_revision=1) for row in held])
            assert {result.status for result in results} == {"stored"}
            stored += len(results)
        return stored

    together(work, [*raters, None])
    assert set(Assignment.objects.values_list("guideline_revision__number", flat=True)) <= {1}
    assert not Assignment.objects.filter(state="leased").exists() or campaign.revisions.first().number == 2
    for person in raters:
        with pytest.raises(ExamplesFirst):
            lease_items(campaign, person, 3)


@pytest.mark.django_db(transaction=True)
def test_one_answer_from_many_tabs_at_once_is_one():
    rater = make_rater()
    campaign = make_campaign(items=2, raters=[rater])
    add_example(campaign, other_sample(), asks_percent=100)
    example = round_of(campaign, rater).left[0].pk
    client = signed_in(rater)
    sent = {"example": example, "attempt": 1, "answers": PASS}
    cookies = client.cookies

    def work(_):
        tab = signed_in(rater)
        tab.cookies = cookies
        return post(tab, address(campaign), sent).json()["ended"]["passed"]

    assert together(work, list(range(4))) == [True] * 4
    assert (ExampleAnswer.objects.count(), ExampleRound.objects.count()) == (1, 1)
