"""Examples of the guidelines: who sees them, how they change with revisions, and that nothing that is one counts."""

import pytest
from django.db import connection, transaction
from django.db.utils import IntegrityError
from django.urls import reverse

from curation.assignments import lease_items
from curation.campaigns import close_campaign, create_compare_campaign, create_pick_campaign
from curation.examples import Example, as_examples, example_changes, examples_of, newest_examples
from curation.gold import GoldRefused, copy_gold, mark_gold, retire_gold
from curation.guidelines import GuidelinesRefused, revise_guidelines
from curation.judgments import record_judgments
from curation.models import CampaignRater, GuidelineExample, Judgment, Verdict
from curation.tallies import differences
from tests.curation.factories import (
    add_example,
    judge_all,
    make_batch,
    make_campaign,
    make_curator,
    make_rater,
    make_row,
)
from tests.curation.test_guidelines_shown import lease, revise, signed_in
from tests.curation.test_leases import make_pairs

pytestmark = pytest.mark.django_db


@pytest.fixture
def rater():
    return make_rater()


@pytest.fixture
def curator():
    return make_curator()


@pytest.fixture
def campaign(rater):
    return make_campaign(items=4, raters=[rater], guidelines="Accept a white rim.")


def samples_of(campaign):
    return [item.item_samples.first().sample for item in campaign.items.order_by("position")]


def form_of(campaign, *examples, **fields):
    """What the page sends: examples are (samples, answer, why, other fields)."""
    newest = campaign.revisions.first()
    form = {
        "text": newest.text,
        "change": "Other examples",
        "based_on": newest.number,
        "examples-TOTAL_FORMS": len(examples),
        "examples-INITIAL_FORMS": 0,
    }
    for index, (samples, answer, why, *more) in enumerate(examples):
        form |= {f"examples-{index}-samples": samples, f"examples-{index}-why": why}
        form |= {f"examples-{index}-answer_alignment": answer}
        form |= {f"examples-{index}-{name}": value for each in more for name, value in each.items()}
    return form | fields


def page_of(campaign):
    return reverse("campaign_guidelines", args=[campaign.slug])


def test_a_curator_chooses_items_says_what_is_right_and_saves_one_revision(campaign, rater, curator):
    client, (first, second, *_) = signed_in(curator), samples_of(campaign)
    elsewhere = make_batch(captions=["an owl"]).samples.get()
    typed = form_of(campaign, text="Another text", do="add", sample=[first.pk, second.pk], numbers=f"{elsewhere.pk}, 9")
    page = client.post(page_of(campaign), typed)
    assert [form["samples"].value() for form in page.context["examples"]] == [
        str(sample.pk) for sample in (first, second, elsewhere)
    ]
    assert "Another text</textarea>" in page.content.decode()
    assert (GuidelineExample.objects.count(), campaign.revisions.count()) == (0, 1)
    form = form_of(
        campaign, (first.pk, "pass", "A rim"), (second.pk, "fail", "No  rim"), (elsewhere.pk, "pass", "An owl")
    )
    assert client.post(page_of(campaign), form).status_code == 302
    assert [
        (row.sample_id, row.answers["alignment"], row.is_good, row.why) for row in GuidelineExample.objects.all()
    ] == [
        (first.pk, "pass", True, "A rim"),
        (second.pk, "fail", False, "No rim"),
        (elsewhere.pk, "pass", True, "An owl"),
    ]
    rating = signed_in(rater).get(f"/rate/{campaign.slug}/")
    assert [(row["said"], row["why"]) for row in rating.context["examples"]] == [
        (["Pass"], "A rim"),
        (["Fail"], "No rim"),
        (["Pass"], "An owl"),
    ]
    assert "No rim" in client.get(campaign.get_absolute_url()).content.decode()


def test_what_is_missing_is_said_and_nothing_that_was_typed_is_lost(campaign, curator):
    first = samples_of(campaign)[0]
    form = form_of(campaign, (first.pk, "", "A rim"), text="Another text")
    page = signed_in(curator).post(page_of(campaign), form).content.decode()
    assert ("This field is required." in page, 'value="A rim"' in page, "Another text</textarea>" in page) == (
        True,
    ) * 3
    assert (GuidelineExample.objects.count(), campaign.items.to_decide().count()) == (0, 4)


def test_a_revision_tells_which_examples_it_added_changed_and_removed(campaign, curator):
    first, second, third, _ = samples_of(campaign)
    client = signed_in(curator)
    client.post(page_of(campaign), form_of(campaign, (first.pk, "pass", "A rim"), (second.pk, "fail", "None")))
    form = form_of(
        campaign,
        (first.pk, "fail", "A rim, but letters"),
        (second.pk, "fail", "None", {"DELETE": "on"}),
        (third.pk, "pass", "A rim"),
    )
    assert client.post(page_of(campaign), form).status_code == 302
    newest, before = campaign.revisions.all()[:2]
    told = [
        (change.kind, change.example.sample_id) for change in example_changes(examples_of(before), examples_of(newest))
    ]
    assert told == [("changed", first.pk), ("added", third.pk), ("removed", second.pk)]
    page = client.get(page_of(campaign))
    assert [(change.kind, said) for change, said in page.context["revisions"][0].examples] == [
        ("changed", ["Fail"]),
        ("added", ["Pass"]),
        ("removed", ["Fail"]),
    ]
    assert "It said before: A rim</p>" in page.content.decode()
    # A revision of the text alone keeps them, and saving them as they are is nothing to save.
    revise(campaign)
    assert as_examples(examples_of(campaign.revisions.first())) == as_examples(examples_of(newest))
    assert newest_examples(campaign) == examples_of(campaign.revisions.first()) != examples_of(newest)
    same = form_of(campaign, (first.pk, "fail", "A rim, but letters"), (third.pk, "pass", "A rim"))
    assert "so there is nothing to save" in client.post(page_of(campaign), same).content.decode()


def test_an_item_that_becomes_an_example_is_handed_out_no_more_and_counts_no_more(rater, campaign):
    other = make_rater()
    CampaignRater.objects.create(campaign=campaign, rater=other)
    held = lease_items(campaign, rater, 1)[0]
    judged = samples_of(campaign)[0]
    record_judgments(rater, [make_row(held)])
    add_example(campaign, judged)
    item = held.item
    assert (Verdict.objects.filter(item=item).exists(), Judgment.objects.filter(item=item).count()) == (False, 1)
    assert judge_all(campaign, other) == 3
    assert differences(campaign) == []
    assert (
        signed_in(campaign.created_by).get(judged.get_absolute_url()).content.decode().count("example of the guid") == 1
    )
    # Left out again it stays so: raters have seen its answer.
    newest = campaign.revisions.first()
    revise_guidelines(
        campaign, newest.text, change="No more", based_on=newest.number, by=campaign.created_by, examples=[]
    )
    third = make_rater()
    CampaignRater.objects.create(campaign=campaign, rater=third)
    assert {row.item_id for row in lease_items(campaign, third, 9)} & {item.pk} == set()


def test_a_lease_in_hand_may_be_finished_and_is_kept_without_counting(rater, campaign):
    held = lease_items(campaign, rater, 1)[0]
    add_example(campaign, samples_of(campaign)[0])
    assert [row.pk for row in lease_items(campaign, rater, 1)] == [held.pk]
    assert record_judgments(rater, [make_row(held, guideline_revision=1)])[0].status == "stored"
    assert not Verdict.objects.exists()
    assert differences(campaign) == []


def test_gold_is_no_example_and_an_example_no_gold(campaign, curator):
    first, second, *_ = campaign.items.order_by("position")
    gold = mark_gold(first, {"alignment": "pass"}, by=curator)
    with pytest.raises(GuidelinesRefused, match="is a gold item of this campaign"):
        add_example(campaign, first.item_samples.get().sample)
    assert (campaign.revisions.count(), GuidelineExample.objects.count()) == (1, 0)
    add_example(campaign, second.item_samples.get().sample)
    with pytest.raises(GoldRefused, match="as an example"):
        mark_gold(second, {"alignment": "pass"}, by=curator)
    retire_gold(gold, by=curator)
    add_example(campaign, first.item_samples.get().sample)
    with pytest.raises(GoldRefused, match="as an example"):
        mark_gold(first, {"alignment": "pass"}, by=curator)


def test_gold_that_is_copied_leaves_examples_out(campaign, curator):
    raters = [make_rater(), make_rater()]
    source = make_campaign(items=3, raters=raters, overlap=2)
    for person in raters:
        judge_all(source, person)
    close_campaign(source, by=curator)
    shown = samples_of(source)[1]
    add_example(campaign, shown)
    assert copy_gold(campaign, source, 9, by=curator) == 2
    assert not campaign.items.filter(item_samples__sample=shown).exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answers": {"alignment": "perhaps"}}, "no answer to a question"),
        ({"answers": {}}, "Choose the right answer to every question"),
        ({"why": " "}, "why these are the right answers"),
        ({"samples": (10**15,)}, f"There is no sample {10**15}"),
        ({"samples": (1, 2)}, "shows 1 sticker"),
    ],
)
def test_examples_that_say_nothing_are_refused(campaign, curator, change, sentence):
    whole = {"samples": (samples_of(campaign)[0].pk,), "answers": {"alignment": "pass"}, "why": "A rim"}
    with pytest.raises(GuidelinesRefused, match=sentence):
        revise_guidelines(campaign, "x", change="x", based_on=1, by=curator, examples=[Example(**whole | change)])
    assert (campaign.revisions.count(), campaign.items.to_decide().count()) == (1, 4)


def test_who_rates_chooses_no_examples(rater, campaign, curator):
    CampaignRater.objects.create(campaign=campaign, rater=curator)
    client, first = signed_in(curator), samples_of(campaign)[0]
    assert "offered" not in client.get(page_of(campaign)).context
    page = client.post(page_of(campaign), form_of(campaign, do="add", sample=first.pk))
    assert (len(page.context["examples"].forms), "you cannot choose its examples" in page.content.decode()) == (0, True)
    refused = client.post(page_of(campaign), form_of(campaign, (first.pk, "pass", "A rim")))
    assert "you cannot choose its examples" in refused.content.decode()
    assert campaign.revisions.count() == 1


def test_a_pair_is_an_example_with_sides_that_are_drawn(rater, curator):
    pairs = make_pairs(3)
    campaign = create_compare_campaign("Pairs", pairs, by=curator, raters=[rater])
    item = campaign.items.order_by("position").first()
    page = signed_in(curator).post(page_of(campaign), form_of(campaign, do="add", item=item.pk))
    samples = page.context["examples"].forms[0]["samples"].value()
    assert set(map(int, samples.split("+"))) == set(item.item_samples.values_list("sample", flat=True))
    form = form_of(campaign, (samples, "", "The rim", {"answer_preference": "left"}))
    assert signed_in(curator).post(page_of(campaign), form).status_code == 302
    assert campaign.items.to_decide().count() == 2
    shown = signed_in(rater).get(f"/rate/{campaign.slug}/").context["examples"]
    assert [(len(row["images"]), row["said"], row["is_good"]) for row in shown] == [(2, ["Left"], None)]


def test_a_candidate_of_a_pick_takes_its_item_out(rater, curator):
    batch = make_batch(["a cat", "a dog"], each=3)
    campaign = create_pick_campaign("Best", by=curator, batches=[batch], raters=[rater], open_now=True)
    add_example(campaign, batch.samples.order_by("pk").first(), is_good=False)
    assert [item.prompt.text for item in campaign.items.to_decide()] == ["a dog"]
    assert GuidelineExample.objects.get().is_good is False


def test_a_lease_brings_the_examples_to_a_screen_that_shows_an_older_revision(rater, campaign):
    client = signed_in(rater)
    lease(client, campaign)
    add_example(campaign, make_batch(captions=["an owl"]).samples.get(), why="The rim is white")
    html = lease(client, campaign, guideline_revision=1)["guidelines_html"]
    assert ("The rim is white" in html, "Accept a white rim." in html) == (True, True)
    assert lease(client, campaign, guideline_revision=2)["guidelines_html"] is None


def test_a_lease_asks_once_where_the_rater_stands_with_the_guidelines(rater, campaign, django_assert_num_queries):
    client = signed_in(rater)
    lease(client, campaign, guideline_revision=1)
    # One row of these is the campaign's, which names the newest revision for new leases, and one what the rater knows.
    with django_assert_num_queries(10):
        lease(client, campaign, guideline_revision=1)


@pytest.mark.parametrize(
    "change", ["UPDATE curation_guidelineexample SET why = ''", "DELETE FROM curation_guidelineexample"]
)
def test_the_database_refuses_to_rewrite_an_example(campaign, change):
    add_example(campaign, samples_of(campaign)[0])
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change)
    assert GuidelineExample.objects.get().why == "As it should be"


def test_the_database_keeps_the_places_of_a_revision_unique(campaign):
    revision = add_example(campaign, samples_of(campaign)[0])
    with pytest.raises(IntegrityError, match="guideline_example_place_once"), transaction.atomic():
        GuidelineExample.objects.create(revision=revision, position=0, sample=samples_of(campaign)[1], is_good=True)
