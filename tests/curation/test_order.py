"""In which order items are handed out, as set up or as chosen."""

import pytest
from django.db import connection
from django.urls import reverse

from curation import order as orders
from curation.assignments import lease_items
from curation.campaigns import create_campaign, create_pick_campaign
from curation.gold import mark_gold, retire_gold
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.models import Item, ItemOrder, Judgment, Question
from curation.order import AS_SET_UP, NOT_JUDGED, STEP, Order, closeness, order_of, set_order, turn
from curation.recounts import recount
from curation.rules import Rule, RuleKind
from jobs.models import Job
from jobs.testing import run_due_jobs
from tests.curation.factories import (
    make_batch,
    make_campaign,
    make_comparison,
    make_curator,
    make_rater,
    make_row,
)
from tests.curation.test_leases import expire, make_pairs
from tests.curation.test_pages import signed_in

RANDOM, LEAST, CLOSEST = (Order(kind) for kind in (ItemOrder.RANDOM, ItemOrder.LEAST, ItemOrder.CLOSEST))
BY_BUCKET = Order(ItemOrder.POSITION, by_bucket=True)
CHOICES = [{"value": "pass", "accepts": True}, {"value": "fail", "accepts": False}]
HAT, CAT = (Question(name=name, choices=CHOICES) for name in ("hat", "cat"))
SIDES = [Question(name="preference", choices=[])]


def leased(campaign, rater, count=100):
    return [row.item.position for row in lease_items(campaign, rater, count)]


def open_items(campaign):
    """Positions of open items, in the order in which somebody new would get them."""
    return list(campaign.items.filter(is_open=True).order_by(*turn(campaign)).values_list("position", flat=True))


def say(campaign, rater, count=100, **values):
    """The rater, who then holds so many, judges the items of these positions: p3="pass"."""
    held = {f"p{row.item.position}": row for row in lease_items(campaign, rater, count)}
    rows = [make_row(held[place], {"alignment": value}) for place, value in values.items()]
    assert {result.status for result in record_judgments(rater, rows)} == {"stored"}


@pytest.fixture
def raters():
    return [make_rater() for _ in range(4)]


@pytest.mark.django_db
def test_mixed_order_is_the_same_for_all_and_drawn_from_the_seed(raters):
    campaign = make_campaign(items=30, raters=raters, overlap=4, order=RANDOM)
    mixed = leased(campaign, raters[0])
    assert mixed == open_items(campaign)
    assert sorted(mixed) == list(range(30)) != mixed
    assert leased(campaign, raters[1]) == mixed
    seed = campaign.order_seed
    set_order(campaign, AS_SET_UP, by=campaign.created_by)
    assert leased(campaign, raters[2]) == list(range(30))
    set_order(campaign, RANDOM, by=campaign.created_by)
    assert open_items(campaign) != mixed
    campaign.order_seed = seed
    places = [place for _, place in orders._places(campaign, RANDOM)]
    assert [places.index(number) for number in range(30)] == mixed
    detail = campaign.events.filter(kind="order").last().detail
    campaign.refresh_from_db()
    assert detail == {"from": "as set up", "to": "mixed", "seed": campaign.order_seed}


@pytest.mark.django_db
def test_least_judged_come_first_and_what_is_on_its_way_counts(raters):
    campaign = make_campaign(items=6, raters=raters, overlap=3, order=LEAST)
    assert leased(campaign, raters[0], 2) == [0, 1]
    assert leased(campaign, raters[1], 3) == [2, 3, 4]
    assert leased(campaign, raters[2], 2) == [5, 0]
    say(campaign, raters[2], 2, p5="pass", p0="fail")
    assert open_items(campaign) == [1, 2, 3, 4, 5, 0]
    # Nobody skips away an item's place in the queue, and an undo gives it back.
    own = Judgment.objects.get(item__position=5, item__campaign=campaign)
    record_judgments(raters[2], [make_row(own.assignment_id, {}, action="undo", supersedes=str(own.pk))])
    record_judgments(raters[2], [make_row(own.assignment_id, {}, action="skip")])
    assert open_items(campaign)[0] == 5


@pytest.mark.django_db
def test_lease_that_ran_out_and_is_taken_again_counts_once(raters):
    campaign = make_campaign(items=2, raters=raters, overlap=3, order=LEAST)
    expire(*lease_items(campaign, raters[0], 1))
    assert leased(campaign, raters[0], 2) == [0, 1]
    assert set(campaign.items.values_list("rank", flat=True)) == {STEP, STEP + 1}


@pytest.mark.parametrize(
    ("hat", "cat", "expected"),
    [
        ((1, 1), (2, 0), 0),
        ((2, 1), (3, 0), 6),
        ((1, 2), (3, 0), 6),
        # One question that all refuse decides, whatever they say of the other.
        ((0, 2), (1, 1), NOT_JUDGED + 2),
        ((1, 0), (1, 0), NOT_JUDGED + 1),
        ((25, 0), (25, 0), 31),
        ((24, 1), (25, 0), 18),
    ],
)
def test_votes_on_single_samples_are_close(hat, cat, expected):
    counts = {
        name: {value: n for value, n in zip(("pass", "fail"), votes, strict=True) if n}
        for name, votes in (("hat", hat), ("cat", cat))
    }
    assert closeness("style", [HAT, CAT], counts, sum(hat)) == expected


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ({"baseline": 1, "candidate": 1}, 0),
        ({"baseline": 1, "tie": 1}, 0),
        ({"candidate": 2, "both_bad": 1}, 6),
        ({"tie": 1, "both_bad": 1}, NOT_JUDGED + 2),
        ({"candidate": 0.9, "baseline": 0.1}, 16),
    ],
)
def test_votes_on_comparisons_are_close(votes, expected):
    assert closeness("compare", SIDES, {"preference": votes}, max(2, int(sum(votes.values())))) == expected


def test_pick_is_as_close_as_its_closest_candidate():
    counts = {"candidate_1": {"picked": 2}, "candidate_2": {"picked": 1, "left": 1}}
    assert closeness("pick", [], counts, 2) == 0
    assert closeness("pick", [], {"candidate_1": {"picked": 2}, "candidate_2": {"left": 2}}, 2) == NOT_JUDGED + 2
    assert closeness("pick", [], {}, 0) == NOT_JUDGED


@pytest.mark.django_db
def test_closest_votes_come_first_then_those_not_judged_then_those_of_one_mind(raters):
    campaign = make_campaign(items=5, raters=raters, overlap=4)
    for rater, values in zip(
        raters[:3],
        (
            {"p0": "pass", "p1": "pass", "p2": "pass", "p3": "pass"},
            {"p0": "pass", "p1": "fail", "p3": "fail"},
            {"p3": "fail"},
        ),
        strict=True,
    ):
        say(campaign, rater, **values)
    set_order(campaign, CLOSEST, by=campaign.created_by)
    assert open_items(campaign) == [1, 3, 4, 2, 0]
    assert leased(campaign, raters[3], 2) == [1, 3]
    say(campaign, raters[3], p1="fail", p3="pass", p4="pass")
    assert open_items(campaign) == [1, 2, 4, 0]
    # The same is found from nothing.
    before = dict(campaign.items.values_list("pk", "rank"))
    set_order(campaign, AS_SET_UP, by=campaign.created_by)
    set_order(campaign, CLOSEST, by=campaign.created_by)
    assert dict(campaign.items.values_list("pk", "rank")) == before
    assert list(problems()) == []


@pytest.mark.django_db
def test_closest_votes_of_an_estimated_rule_are_its_likelihoods(raters):
    rule = Rule(RuleKind.DAWID_SKENE, 0.9)
    campaign = make_campaign(items=12, raters=raters[:2], overlap=2, max_overlap=4, rule=rule, order=CLOSEST)
    for number, rater in enumerate(raters[:2]):
        good = {f"p{place}": ("pass", "fail")[place % 2] for place in range(11)}
        say(campaign, rater, **good, p11=("fail", "pass")[number])
    recount(campaign, by=campaign.created_by)
    assert open_items(campaign) == [11]
    assert campaign.items.get(position=11).rank < NOT_JUDGED * STEP


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ItemOrder.values)
def test_buckets_take_turns_and_one_that_is_behind_catches_up(raters, kind):
    # The first eight are of one bucket, the last four of the other.
    campaign = make_campaign(items=12, raters=raters)
    campaign.items.filter(position__lt=8).update(bucket="scene")
    campaign.items.filter(position__gte=8).update(bucket="emotion")
    say(campaign, raters[0], count=2, p0="pass", p1="pass")
    set_order(campaign, Order(ItemOrder(kind), by_bucket=True), by=campaign.created_by)
    buckets = dict(campaign.items.values_list("position", "bucket"))
    coming = [buckets[place] for place in open_items(campaign)]
    assert [set(coming[:2]), set(coming[2:4]), set(coming[4:6])] == [
        {"emotion"},
        {"emotion", "scene"},
        {"emotion", "scene"},
    ]
    assert set(coming[6:]) == {"scene"}


@pytest.mark.django_db
def test_grid_keeps_to_the_order_of_prompts(raters):
    batch = make_batch([f"prompt {number}" for number in range(8)], each=2)
    campaign = create_campaign(
        "alignment", name="A", by=make_curator(), batches=[batch], raters=raters, overlap=2, order=RANDOM, open_now=True
    )
    first = {row.item.prompt_id for row in lease_items(campaign, raters[0], 6, together=True)}
    assert len(first) == 3
    coming = campaign.items.order_by("rank").values_list("prompt_id", flat=True)
    assert first == set(list(dict.fromkeys(coming))[:3])


@pytest.mark.django_db
def test_gold_taken_out_finds_its_place_again(raters):
    campaign = make_campaign(items=4, raters=raters, overlap=2, order=LEAST)
    item = campaign.items.get(position=1)
    gold = mark_gold(item, {"alignment": "pass"}, by=campaign.created_by)
    set_order(campaign, CLOSEST, by=campaign.created_by)
    retire_gold(gold, by=campaign.created_by)
    assert open_items(campaign) == [0, 1, 2, 3]
    assert list(problems()) == []


@pytest.mark.django_db
def test_comparisons_and_picks_may_have_an_order(raters):
    comparison = make_comparison(make_pairs(4), ["baseline", "tie"], close=False)
    set_order(comparison, CLOSEST, by=comparison.created_by)
    assert order_of(comparison) == CLOSEST
    pick = create_pick_campaign("P", by=make_curator(), batches=[make_batch(["a", "b", "c"], each=2)], order=RANDOM)
    assert sorted(pick.items.values_list("rank", flat=True)) == [0, 1, 2]


@pytest.mark.django_db
def test_large_campaign_is_put_in_order_by_a_job_and_a_newer_choice_ends_it(raters, monkeypatch):
    monkeypatch.setattr(orders, "MOST_AT_ONCE", 3)
    monkeypatch.setattr(orders, "CHUNK", 2)
    campaign = make_campaign(items=5, raters=raters)
    assert set_order(campaign, RANDOM, by=campaign.created_by).kind == "curation.put_in_order"
    assert set_order(campaign, BY_BUCKET, by=campaign.created_by) is not None
    # Until it is done items go out all the same.
    assert sorted(leased(campaign, raters[0])) == [0, 1, 2, 3, 4]
    run_due_jobs()
    jobs = Job.objects.filter(kind="curation.put_in_order")
    assert {job.payload["order"]: job.result for job in jobs} == {"random": {"items": 0}, "position": {"items": 5}}
    assert open_items(campaign) == [0, 1, 2, 3, 4]
    assert list(campaign.items.order_by("position").values_list("rank", flat=True)) == [0, 0, 1, 1, 2]


@pytest.mark.django_db
def test_new_campaign_that_is_large_is_put_in_order_by_a_job(raters, monkeypatch):
    monkeypatch.setattr(orders, "MOST_AT_FIRST", 3)
    monkeypatch.setattr(orders, "MOST_AT_ONCE", 3)
    small, large = (make_campaign(items=items, raters=raters, order=BY_BUCKET) for items in (3, 4))
    assert [list(each.items.values_list("rank", flat=True)) for each in (small, large)] == [[0, 0, 1], [0] * 4]
    assert sorted(leased(large, raters[0])) == [0, 1, 2, 3]
    run_due_jobs()
    assert (order_of(large), list(large.items.values_list("rank", flat=True))) == (BY_BUCKET, [0, 0, 1, 1])


@pytest.mark.django_db
def test_lease_in_another_order_uses_its_index(raters):
    campaign = make_campaign(items=1, raters=raters, order=LEAST)
    prompt = campaign.items.get().prompt
    Item.objects.bulk_create(
        Item(campaign=campaign, position=position, prompt=prompt, rank=position % 7) for position in range(1, 5000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE curation_item")
    free = campaign.items.free_for(raters[0], 1).order_by(*turn(campaign))
    plan = free.select_for_update(skip_locked=True, of=("self",), no_key=True)[:10].explain()
    assert "item_ranked" in plan
    assert "Sort" not in plan


@pytest.mark.django_db
def test_curator_chooses_the_order_when_setting_up_and_while_it_is_open(raters):
    client = signed_in(make_curator())
    form = {"kind": "alignment", "name": "A", "batches": [make_batch(["one", "two", "three"]).pk], "overlap": 2}
    form |= {"item_order": "least", "by_bucket": "on", "raters": [raters[0].pk], "open_now": "on"}
    page = client.post(reverse("campaign_new"), form, follow=True)
    assert "Least judged first, by turns between buckets" in page.content.decode()
    url = reverse("campaign_order", args=[page.context["campaign"].slug])
    page = client.post(url, {"item_order": "closest"}, follow=True).content.decode()
    assert "Items are handed out in this order now: closest votes first." in page
    assert "Order changed from least judged first, by turns between buckets to closest votes first by" in page
    page = client.post(url, {"item_order": "nonsense"}, follow=True).content.decode()
    assert "Select a valid choice" in page
    assert "Closest votes first" in page
    assert client.post(url, {"item_order": "closest"}, follow=True).content.decode().count("Order changed") == 1


@pytest.mark.django_db
def test_only_curators_choose_the_order(raters):
    campaign = make_campaign(items=2, raters=raters)
    response = signed_in(raters[0]).post(reverse("campaign_order", args=[campaign.slug]), {"item_order": "random"})
    campaign.refresh_from_db()
    assert (response.status_code, order_of(campaign)) == (403, AS_SET_UP)
