"""Picks: raters choose the best of several candidates, whose order is mixed; what they say is resolved to samples."""

import pytest
from django.urls import reverse

from curation import integrity
from curation.adjudications import adjudicate
from curation.agreement import agreement_by_bucket
from curation.assignments import lease_items
from curation.browsing import find_samples, marks_of
from curation.campaigns import CampaignRefused, create_pick_campaign
from curation.datasets import select_entries
from curation.gold import GoldRefused, mark_gold
from curation.judgments import record_judgments
from curation.models import ItemSample, Judgment, Outcome, Verdict
from curation.pass_rates import pass_rates
from curation.recounts import set_rule
from curation.rules import MAJORITY, RuleRefused
from curation.statistics import progress_of
from generation.models import Sample
from tests.curation.factories import make_batch, make_curator, make_dataset, make_rater, make_row

pytestmark = pytest.mark.django_db


def make_pick(*raters, prompts=1, each=3, **fields):
    batch = make_batch([f"prompt {number}" for number in range(prompts)], each=each)
    fields = {"overlap": max(len(raters), 1), "open_now": True} | fields
    return create_pick_campaign("Best of all", by=make_curator(), batches=[batch], raters=raters, **fields)


def pick(rater, campaign, *slots):
    """The rater picks these slots of the next item, wherever they stand for this rater."""
    [leased] = lease_items(campaign, rater, 1)
    places = sorted(leased.order.index(slot) + 1 for slot in slots)
    row = make_row(leased, {"best": "+".join(map(str, places)) or "none"})
    [result] = record_judgments(rater, [row])
    assert result.status == "stored", result.reason
    return row


def picked(campaign):
    rows = ItemSample.objects.filter(item__campaign=campaign).order_by("item__position", "slot")
    return list(rows.values_list("picked", flat=True))


def test_an_item_is_a_prompt_with_its_candidates_and_each_rater_sees_them_in_an_order_of_their_own():
    raters = [make_rater() for _ in range(12)]
    campaign = make_pick(*raters, prompts=2, each=4)
    assert [row.item_samples.count() for row in campaign.items.all()] == [4, 4]
    orders = {tuple(lease_items(campaign, rater, 2)[0].order) for rater in raters}
    assert len(orders) > 1
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)


@pytest.mark.parametrize(("each", "reason"), [(1, "nothing to pick"), (10, "At most 9")])
def test_one_candidate_and_ten_are_refused(each, reason):
    with pytest.raises(CampaignRefused, match=reason):
        make_pick(each=each)


def test_candidate_that_half_picked_is_accepted_and_the_others_are_not():
    raters = [make_rater() for _ in range(4)]
    campaign = make_pick(*raters)
    for rater, slots in zip(raters, [(0, 1), (0,), (1, 0), ()], strict=True):
        assert picked(campaign) == [None, None, None]
        pick(rater, campaign, *slots)
    assert picked(campaign) == [True, True, False]
    verdict = Verdict.objects.get()
    assert (verdict.outcome, verdict.rule, verdict.contested) == (Outcome.ACCEPTED, "half", False)
    assert verdict.tallies == {
        "candidate_1": {"left": 1, "picked": 3},
        "candidate_2": {"left": 2, "picked": 2},
        "candidate_3": {"left": 4},
    }
    assert list(integrity.problems()) == []


def test_undone_pick_decides_nothing():
    rater = make_rater()
    campaign = make_pick(rater)
    row = pick(rater, campaign, 2)
    assert picked(campaign) == [False, False, True]
    undo = make_row(row["assignment"], {}, action="undo", supersedes=row["id"])
    assert record_judgments(rater, [undo])[0].status == "stored"
    assert picked(campaign) == [None, None, None]


@pytest.mark.parametrize("value", ["", "0", "4", "2+1", "1+1", "1+none", "1,2", "1+", "9", "all"])
def test_what_is_no_pick_is_refused_with_a_reason(value):
    rater = make_rater()
    [leased] = lease_items(make_pick(rater), rater, 1)
    [result] = record_judgments(rater, [make_row(leased, {"best": value})])
    assert (result.status, "choice" in result.reason) == ("rejected", True)


def test_places_end_where_an_item_has_fewer_candidates_than_others():
    rater = make_rater()
    batches = [make_batch(["few"], each=2), make_batch(["many"], each=4)]
    campaign = create_pick_campaign("Mixed", by=make_curator(), batches=batches, raters=[rater], open_now=True)
    few, many = sorted(lease_items(campaign, rater, 2), key=lambda row: len(row.order))
    results = record_judgments(rater, [make_row(few, {"best": "3"}), make_row(many, {"best": "3"})])
    assert [result.status for result in results] == ["rejected", "stored"]
    assert "There are 2 pictures" in results[0].reason


def test_picked_samples_alone_are_in_a_dataset_with_the_judgments_behind_them():
    rater = make_rater()
    campaign = make_pick(rater, prompts=2)
    rows = [pick(rater, campaign, 0, 2), pick(rater, campaign)]
    entries = select_entries(make_dataset(campaign))
    chosen = ItemSample.objects.filter(item__campaign=campaign, picked=True)
    assert {entry.sample_id for entry in entries} == set(chosen.values_list("sample", flat=True))
    assert [entry.judgments for entry in entries] == [(rows[0]["id"],)] * 2
    samples = Sample.objects.all()
    assert sorted(marks_of(samples).values()) == ["fail"] * 4 + ["pass"] * 2
    found = {verdict: find_samples(samples, {"verdict": verdict}).count() for verdict in Outcome.values[:4]}
    assert found == {"accepted": 2, "rejected": 4, "split": 0, "pending": 0}


def test_curator_decides_above_the_raters():
    rater = make_rater()
    campaign = make_pick(rater)
    pick(rater, campaign, 0)
    adjudicate(campaign.items.get(), by=make_curator(), answers={"best": "2"})
    assert picked(campaign) == [False, True, False]
    assert [entry.sample_id for entry in select_entries(make_dataset(campaign))] == [
        ItemSample.objects.get(item__campaign=campaign, slot=1).sample_id
    ]


def test_agreement_is_that_about_each_candidate():
    raters = [make_rater() for _ in range(2)]
    campaign = make_pick(*raters, prompts=4)
    for slots in [(0,), (1,), (2,), (0, 1)]:
        for rater in raters:
            pick(rater, campaign, *slots)
    questions = list(campaign.questions.all())
    bucket, [measure] = agreement_by_bucket(campaign, questions)[-1]
    assert (bucket, measure.alpha, measure.items) == ("all", 1.0, 12)
    assert progress_of([campaign])[campaign.pk].agreement == 100
    [share] = pass_rates(campaign, questions)[1][-1]["shares"]
    assert (share.k, share.n) == (10, 24)


def test_pick_keeps_its_rule_and_has_no_gold():
    campaign = make_pick()
    with pytest.raises(RuleRefused, match="rule of every pick"):
        set_rule(campaign, MAJORITY, by=make_curator())
    with pytest.raises(GoldRefused, match="no gold"):
        mark_gold(campaign.items.get(), {"best": "1"}, by=make_curator())


def test_form_makes_a_pick_and_its_pages_say_what_was_picked(client):
    rater, curator = make_rater(), make_curator()
    client.force_login(curator)
    batch = make_batch(["a cat", "a dog"], each=3)
    form = {
        "kind": "pick",
        "name": "The best",
        "batches": [batch.pk],
        "overlap": 1,
        "raters": [rater.pk],
        "open_now": "on",
    }
    form |= {"rule": "majority", "threshold": "0.9"}
    answer = client.post(reverse("campaign_new"), form, follow=True)
    assert "“The best” is set up with 2 items." in answer.content.decode()
    campaign = answer.context["campaign"]
    assert (campaign.kind, "Pick the best of them" in campaign.guidelines) == ("pick", True)
    pick(rater, campaign, 1)
    page = client.get(answer.redirect_chain[-1][0]).content.decode()
    assert "Which of these are the best?" in page
    assert "At least half of the judgments pick it" in page
    for row, said in zip(
        Judgment.objects.get().item.item_samples.order_by("slot"), ("not picked", "picked"), strict=False
    ):
        assert f"best: {said}<" in client.get(row.sample.get_absolute_url()).content.decode()
