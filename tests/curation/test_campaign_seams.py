"""Where features of campaigns meet: questions and verdicts, examples and picks, sets and gold, scores at their ends."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from curation import campaigns
from curation.assignments import lease_items, left_for
from curation.campaigns import (
    CampaignRefused,
    close_campaign,
    create_campaign,
    create_pick_campaign,
    open_campaign,
)
from curation.example_rounds import answer_example, round_of
from curation.examples import Example
from curation.gold import GoldRefused, copy_gold, mark_gold, retire_gold, sources_for
from curation.guidelines import revise_guidelines
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.models import Assignment, ItemOrder, ItemSample, Judgment
from curation.order import Order, set_order
from curation.picks import QUESTION
from curation.probes import make_probes, set_probe_percent
from curation.questions import QuestionsRefused, revise_questions, specs_of
from curation.scores import ScoresRefused, import_scores, read_scores
from tests.curation.factories import (
    judge_all,
    make_batch,
    make_campaign,
    make_curator,
    make_rater,
    make_row,
    make_set_campaign,
)
from tests.curation.test_examples import form_of, page_of
from tests.curation.test_guidelines_shown import signed_in

pytestmark = pytest.mark.django_db
PASSED = {"visual_quality": "pass", "prompt_alignment": "pass", "style_alignment": "pass"}


@pytest.fixture
def rater():
    return make_rater()


@pytest.fixture
def curator():
    return make_curator()


def revise(campaign, specs, by):
    newest = campaign.question_revisions.first()
    return revise_questions(campaign, specs, change="Other", based_on=newest.number, by=by)


def test_what_decides_verdicts_stays_once_a_campaign_was_opened(rater, curator):
    """A question that need not be answered any more would leave verdicts behind that no judgment adds up to."""
    campaign = make_campaign("style", items=2, raters=[rater])
    judge_all(campaign, rater, PASSED | {"style_alignment": "fail"})
    specs = specs_of(campaign)
    specs[2]["required"] = False
    with pytest.raises(QuestionsRefused, match="has to be answered"):
        revise(campaign, specs, curator)
    assert list(problems()) == []
    assert (
        "required_style_alignment"
        not in signed_in(curator).get(f"/campaigns/{campaign.slug}/questions/").context["form"].fields
    )


def test_a_judgment_cannot_name_questions_that_the_campaign_never_asked(rater, curator):
    campaign = make_campaign(items=1, raters=[rater], open_now=False)
    specs = specs_of(campaign)
    specs[0]["choices"] = [each | {"value": f"other-{each['value']}"} for each in specs[0]["choices"]]
    revise(campaign, specs, curator)
    open_campaign(campaign, by=curator)
    (held,) = lease_items(campaign, rater, 1)
    rows = [
        make_row(held, {"alignment": "pass"}, question_revision=1),
        make_row(held, {"alignment": "other-pass"}, question_revision=2),
    ]
    results = record_judgments(rater, rows)
    assert [result.status for result in results] == ["rejected", "stored"]
    assert "never asked" in results[0].reason
    assert Judgment.objects.get().answers == {"alignment": "other-pass"}
    assert list(problems()) == []


def test_questions_of_examples_stay_what_the_examples_answer(rater, curator):
    """Also where the example shows no sticker of the campaign."""
    campaign = make_campaign(items=1, open_now=False)
    elsewhere = make_batch().samples.get()
    example = Example((elsewhere.pk,), {"alignment": "pass"}, "It smiles.")
    revise_guidelines(campaign, "", change="An example", based_on=1, by=curator, examples=[example])
    specs = specs_of(campaign)
    specs[0]["choices"] = [each | {"value": f"other-{each['value']}"} for each in specs[0]["choices"]]
    with pytest.raises(QuestionsRefused, match="examples say what is right"):
        revise(campaign, specs, curator)


def test_an_example_that_was_sent_empty_is_asked_for_and_not_a_fault(curator):
    campaign = make_campaign(items=1)
    form = form_of(campaign) | {"examples-TOTAL_FORMS": 1, "text": "Another text"}
    page = signed_in(curator).post(page_of(campaign), form)
    assert page.status_code == 200
    assert "This form is incomplete" in page.content.decode()
    assert campaign.revisions.count() == 1


def test_candidates_of_a_pick_that_becomes_an_example_are_picked_no_more(rater, curator):
    batch = make_batch(["a cat"], each=3)
    campaign = create_pick_campaign("Pick", batches=[batch], by=curator, raters=[rater], open_now=True)
    judge_all(campaign, rater, {QUESTION: "1"})
    assert set(ItemSample.objects.values_list("picked", flat=True)) == {True, False}
    shown = campaign.items.get().item_samples.first().sample
    example = Example((shown.pk,), {}, "Bold.", is_good=True)
    revise_guidelines(campaign, "", change="An example", based_on=1, by=curator, examples=[example])
    assert set(ItemSample.objects.values_list("picked", flat=True)) == {None}
    assert list(problems()) == []


def test_gold_of_sets_comes_from_sets_that_look_the_same(rater, curator):
    """Another number of pictures would say which item is gold."""
    others = [make_set_campaign(size=size, raters=[rater, make_rater()], overlap=2) for size in (4, 9)]
    for other in others:
        for membership in other.memberships.all():
            judge_all(other, membership.rater, {"variety": "tie"})
        close_campaign(other, by=curator)
    campaign = make_set_campaign(["a dog"], size=9)
    assert sources_for(campaign, curator) == [others[1]]
    with pytest.raises(GoldRefused, match="sets of as many"):
        copy_gold(campaign, others[0], 1, by=curator)
    assert copy_gold(campaign, others[1], 1, by=curator) == 1


def test_scores_at_the_ends_of_what_numbers_can_say_can_be_put_in_order(curator):
    campaign = make_campaign(items=2, open_now=False)
    first, second = (item.item_samples.get().sample_id for item in campaign.items.order_by("position"))
    import_scores(campaign, read_scores(f"{first},-1e300\n{second},1e-300".encode()), name="far", by=curator)
    set_order(campaign, Order(ItemOrder.UNCERTAIN, threshold=1e300), by=curator)
    with pytest.raises(ScoresRefused, match="Line 1"):
        read_scores(f"{first},1e308".encode())


def test_gold_that_was_taken_out_and_became_an_example_is_called_one(curator):
    campaign = make_campaign(items=1)
    item = campaign.items.get()
    retire_gold(mark_gold(item, {"alignment": "pass"}, by=curator), by=curator)
    example = Example((item.item_samples.get().sample_id,), {"alignment": "pass"}, "It smiles.")
    revise_guidelines(campaign, "", change="An example", based_on=1, by=curator, examples=[example])
    page = signed_in(curator).get(item.item_samples.get().sample.get_absolute_url()).content.decode()
    assert ("example of the guidelines" in page, '<span class="tag">gold</span>' in page) == (True, False)


def test_what_became_an_example_is_asked_again_of_nobody(rater, curator, monkeypatch):
    """A lease of a probe that ran out comes back, but not where the rater has been told its answer."""
    monkeypatch.setattr("curation.probes.LEAST_BETWEEN", 0)
    campaign = make_campaign(items=3, raters=[rater])
    set_probe_percent(campaign, 10, by=curator)
    campaign.refresh_from_db()
    held = lease_items(campaign, rater, 1)
    record_judgments(rater, [make_row(held[0])])
    with transaction.atomic():
        probe = make_probes(campaign, rater, [held[0].item])[held[0].item_id]
    lapsed = Assignment.objects.create(
        item=probe, rater=rater, order=[0], expires_at=timezone.now() - timedelta(hours=1)
    )
    assert left_for(campaign, rater) == 3
    example = Example((probe.item_samples.get().sample_id,), {"alignment": "pass"}, "It smiles.")
    revise_guidelines(campaign, "", change="An example", based_on=1, by=curator, examples=[example])
    assert left_for(campaign, rater) == 2
    assert lapsed.item_id not in {each.item_id for each in lease_items(campaign, rater, 10)}


def test_an_answer_that_may_be_left_out_is_not_wrong_where_an_example_is_answered_without(rater, curator):
    campaign = make_campaign("style", items=1, raters=[rater], open_now=False)
    specs = specs_of(campaign)
    specs[2]["required"] = False
    revise(campaign, specs, curator)
    open_campaign(campaign, by=curator)
    shown = [batch.samples.get().pk for batch in (make_batch(), make_batch(), make_batch())]
    examples = [Example((pk,), PASSED, "It smiles.") for pk in shown]
    revise_guidelines(campaign, "", change="Examples", based_on=1, by=curator, examples=examples, asks_percent=100)
    required = dict.fromkeys(list(PASSED)[:2], "pass")
    right = []
    asked = round_of(campaign, rater)
    for row, more in zip(asked.left, ({}, {"style_alignment": "pass"}, {"style_alignment": "fail"}), strict=True):
        given, _, _ = answer_example(campaign, rater, example=row.pk, attempt=1, answers=required | more)
        right.append(given.right)
    assert right == [True, True, False]


def test_items_of_whole_batches_are_those_of_their_samples_one_by_one(curator, django_assert_max_num_queries):
    batches = [make_batch([f"prompt {n}" for n in range(3)], each=each) for each in (1, 2)]
    with django_assert_max_num_queries(25):
        whole = create_campaign("alignment", name="Whole", by=curator, batches=batches)
    samples = list(campaigns._samples_of(batches))
    single = create_campaign("alignment", name="Single", by=curator, samples=samples)

    def rows(campaign):
        fields = ("position", "prompt", "bucket", "judged", "is_open", "is_gold", "rank", "score", "adjudicated")
        return list(
            campaign.items.order_by("position").values_list(*fields, "item_samples__slot", "item_samples__sample")
        )

    assert rows(whole) == rows(single)
    assert [row[-1] for row in rows(whole)] == [sample.pk for sample in samples]
    assert list(problems()) == []


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_campaign_of_more_items_than_it_may_have_is_refused(curator, monkeypatch, one_by_one):
    batch = make_batch(["a cat", "a dog", "a bird"])
    monkeypatch.setattr(campaigns, "MAX_ITEMS_ONE_BY_ONE" if one_by_one else "MAX_ITEMS", 2)
    samples = list(batch.samples.all()) if one_by_one else None
    with pytest.raises(CampaignRefused, match="at most 2 items; this one would have 3"):
        create_campaign("alignment", name="Big", by=curator, batches=[batch], samples=samples)
    assert campaigns.Campaign.objects.count() == 0
