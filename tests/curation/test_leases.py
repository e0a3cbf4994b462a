import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from curation.assignments import WANTED, LeaseRefused, _sides, lease_items, left_for
from curation.campaigns import close_campaign, create_compare_campaign, open_campaign, pause_campaign, set_raters
from curation.judgments import record_judgments
from curation.leases import in_hand
from curation.models import Assignment, Item
from tests.curation.factories import make_batch, make_campaign, make_curator, make_rater, make_row

pytestmark = pytest.mark.django_db


def expire(*assignments):
    Assignment.objects.filter(pk__in=[row.pk for row in assignments]).update(expires_at="2020-01-01T00:00:00Z")


def items_of(assignments):
    return [row.item_id for row in assignments]


def test_lease_follows_the_campaigns_order_and_a_reload_gives_the_same_again():
    rater = make_rater()
    campaign = make_campaign(items=5, raters=[rater])
    first = lease_items(campaign, rater, 3)
    assert items_of(first) == list(campaign.items.order_by("position").values_list("pk", flat=True)[:3])
    again = lease_items(campaign, rater, 3)
    assert [row.pk for row in again] == [row.pk for row in first]
    assert again[0].expires_at >= first[0].expires_at
    assert len(lease_items(campaign, rater, 5)) == 5
    assert Assignment.objects.count() == 5


def test_lease_never_exceeds_the_overlap():
    raters = [make_rater() for _ in range(3)]
    campaign = make_campaign(items=2, raters=raters, overlap=2)
    assert [len(lease_items(campaign, rater, 10)) for rater in raters] == [2, 2, 0]
    assert [left_for(campaign, rater) for rater in raters] == [2, 2, 0]


def test_lease_that_ran_out_goes_to_somebody_else_and_may_come_back():
    first, second = make_rater(), make_rater()
    campaign = make_campaign(items=1, raters=[first, second])
    held = lease_items(campaign, first, 1)
    assert lease_items(campaign, second, 1) == []
    expire(*held)
    taken = lease_items(campaign, second, 1)
    assert items_of(taken) == items_of(held)
    assert lease_items(campaign, first, 1) == []
    expire(*taken)
    assert [row.pk for row in lease_items(campaign, first, 1)] == [held[0].pk]


@pytest.mark.parametrize("only_gold", [True, False])
def test_what_a_rater_has_in_hand_is_what_lives_and_is_wanted(only_gold):
    rater = make_rater()
    campaign, elsewhere = (make_campaign(items=9, raters=[rater]) for _ in range(2))
    held = lease_items(campaign, rater, 8)
    lease_items(elsewhere, rater, 2)
    expire(held[0])
    Assignment.objects.filter(pk=held[1].pk).update(state="released")
    # Gold that ran out, gold, and an item that wants nothing more.
    Item.objects.filter(pk__in=items_of(held[2:4])).update(is_open=False, is_gold=True)
    expire(held[2])
    Item.objects.filter(pk=held[4].item_id).update(is_open=False)
    live = Assignment.objects.live().filter(WANTED, rater=rater, item__campaign=campaign).order_by("pk")
    if only_gold:
        live = live.filter(item__is_gold=True)
    expected = list(live.values_list("pk", flat=True))
    assert len(expected) == (1 if only_gold else 4)
    assert in_hand(campaign, rater, 9, only_gold=only_gold) == expected
    assert in_hand(campaign, rater, 1, only_gold=only_gold) == expected[:1]


def test_skipped_item_does_not_come_back_to_its_rater_but_goes_to_others():
    first, second = make_rater(), make_rater()
    campaign = make_campaign(items=1, raters=[first, second])
    held = lease_items(campaign, first, 1)
    record_judgments(first, [make_row(held[0], {}, action="skip")])
    assert lease_items(campaign, first, 1) == []
    assert items_of(lease_items(campaign, second, 1)) == items_of(held)


@pytest.mark.parametrize("count", [0, -3, 1])
def test_lease_gives_at_least_one(count):
    rater = make_rater()
    campaign = make_campaign(items=3, raters=[rater])
    assert len(lease_items(campaign, rater, count)) == 1


def test_lease_gives_at_most_a_hundred():
    rater = make_rater()
    campaign = make_campaign(items=105, raters=[rater])
    assert len(lease_items(campaign, rater, 10**9)) == 100


def test_large_leases_leave_others_half_of_what_there_is_and_small_ones_take_what_they_ask_for():
    first, second, third = (make_rater() for _ in range(3))
    campaign = make_campaign(items=60, raters=[first, second, third])
    assert len(lease_items(campaign, first, 80)) == 30
    # Of what the first holds and what is free they hold half already: they keep that, and get no more.
    assert len(lease_items(campaign, first, 80)) == 30
    assert len(lease_items(campaign, second, 80)) == 15
    assert len(lease_items(campaign, third, 80)) == 10
    assert len(lease_items(campaign, third, 10)) == 10
    held = lease_items(campaign, first, 80)
    record_judgments(first, [make_row(row) for row in held])
    # Others hold the rest, save five that are free.
    assert len(lease_items(campaign, first, 80)) == 5
    assert Assignment.objects.values("item").distinct().count() == Assignment.objects.count() == 60


@pytest.mark.parametrize(("raters", "overlap", "expected"), [(1, 1, 30), (2, 2, 30), (3, 2, 15)])
def test_large_leases_are_shared_only_where_somebody_could_be_left_without(raters, overlap, expected):
    people = [make_rater() for _ in range(raters + 1)]
    campaign = make_campaign(items=30, raters=people, overlap=overlap)
    set_raters(campaign, people[:raters], by=make_curator())
    assert len(lease_items(campaign, people[0], 80)) == expected


def test_small_leases_ask_for_no_share():
    raters = [make_rater() for _ in range(2)]
    campaign = make_campaign(items=30, raters=raters)
    with CaptureQueriesContext(connection) as small:
        lease_items(campaign, raters[0], 10)
    with CaptureQueriesContext(connection) as large:
        lease_items(campaign, raters[1], 11)
    assert len(large) == len(small) + 1


def test_lease_needs_an_open_campaign_a_place_and_the_role():
    rater, stranger, curator = make_rater(), make_rater(), make_curator()
    campaign = make_campaign(items=1, raters=[rater], open_now=False)
    with pytest.raises(LeaseRefused, match="draft"):
        lease_items(campaign, rater, 1)
    open_campaign(campaign, by=curator)
    with pytest.raises(LeaseRefused, match="not one of the raters"):
        lease_items(campaign, stranger, 1)
    pause_campaign(campaign, by=curator)
    with pytest.raises(LeaseRefused, match="paused"):
        lease_items(campaign, rater, 1)
    close_campaign(campaign, by=curator)
    with pytest.raises(LeaseRefused, match="closed"):
        lease_items(campaign, rater, 1)
    open_campaign(campaign, by=curator)
    set_raters(campaign, [], by=curator)
    with pytest.raises(LeaseRefused, match="not one of the raters"):
        lease_items(campaign, rater, 1)
    set_raters(campaign, [rater], by=curator)
    rater.roles = ["auditor"]
    rater.save()
    with pytest.raises(LeaseRefused, match="not one of the raters"):
        lease_items(campaign, rater, 1)


def make_pairs(count):
    prompts = [f"prompt {number}" for number in range(count)]
    old, new = make_batch(prompts), make_batch(prompts)
    return [(before.prompt, before, after) for before, after in zip(old.samples.all(), new.samples.all(), strict=True)]


def test_each_rater_sees_the_baseline_left_as_often_as_right():
    raters = [make_rater() for _ in range(3)]
    campaign = create_compare_campaign("Old or new", make_pairs(20), by=make_curator(), overlap=3, raters=raters)
    orders = []
    for rater in raters:
        lease_items(campaign, rater, 7)
        leased = lease_items(campaign, rater, 20)
        orders.append([tuple(row.order) for row in leased])
        assert sorted(orders[-1]) == [(0, 1)] * 10 + [(1, 0)] * 10
        assert [[sample.batch_id for sample in row.shown] for row in leased] == [
            [list(row.item.item_samples.all())[slot].sample.batch_id for slot in row.order] for row in leased
        ]
    assert len({tuple(order) for order in orders}) > 1, "the sides of all raters would be the same"


def test_lease_uses_the_partial_index():
    rater = make_rater()
    campaign = make_campaign(items=1, raters=[rater])
    other = make_campaign(items=1)
    Item.objects.bulk_create(
        Item(campaign=other, position=position, prompt=other.items.get(position=0).prompt, is_open=position % 50 == 0)
        for position in range(1, 5000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE curation_item")
    free = other.items.free_for(rater, campaign.overlap).select_for_update(skip_locked=True, of=("self",), no_key=True)
    assert "item_open" in free.order_by("position")[:10].explain()


def test_sides_cannot_be_worked_out_without_the_secret_key(settings):
    rater = make_rater()
    campaign = create_compare_campaign("Blind", make_pairs(2), by=make_curator(), raters=[rater])

    def sides(key):
        settings.SECRET_KEY = key * 64
        return [_sides(campaign, rater, number) for number in range(64)]

    first, second = sides("a"), sides("b")
    assert first != second
    for drawn in (first, second):
        assert all(sorted(pair) == [[0, 1], [1, 0]] for pair in zip(drawn[::2], drawn[1::2], strict=True))
