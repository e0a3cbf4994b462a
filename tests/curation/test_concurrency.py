"""Twenty raters at once, on real connections: no item too often, none forgotten, and one row for each id."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest
from django.db import connection, connections, transaction
from django.db.models import Count

from curation import judgments
from curation.assignments import lease_items
from curation.judgments import record_judgments
from curation.models import Assignment, ItemOrder, Judgment, Verdict
from curation.order import AS_SET_UP, Order
from tests.curation.factories import make_campaign, make_rater, make_row

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 20


def together(work, people):
    """Run work(person) for all at the same moment, each on a connection of its own; returns what they gave back."""
    gate = Barrier(len(people))

    def run(person):
        try:
            gate.wait(30)
            return work(person)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(people)) as pool:
        return list(pool.map(run, people))


@pytest.mark.parametrize("order", [AS_SET_UP, Order(ItemOrder.LEAST, by_bucket=True), Order(ItemOrder.CLOSEST)])
def test_twenty_raters_reach_the_overlap_exactly(order):
    raters = [make_rater() for _ in range(THREADS)]
    campaign = make_campaign(items=40, raters=raters, overlap=3, order=order)

    def rate(rater):
        done, until = 0, time.monotonic() + 60
        # Nothing to lease may only mean that the others hold all of it at this moment: a browser asks again too.
        while campaign.items.filter(is_open=True).exists() and time.monotonic() < until:
            leased = lease_items(campaign, rater, 4)
            results = record_judgments(rater, [make_row(row) for row in leased])
            assert {result.status for result in results} <= {"stored"}
            done += len(results)
        return done

    done = together(rate, raters)
    assert sum(done) == 40 * 3
    assert set(campaign.items.values_list("judged", "is_open")) == {(3, False)}
    assert set(Verdict.objects.values_list("outcome", "judgments")) == {("accepted", 3)}
    assert not Judgment.objects.filter(late=True).exists()
    by_rater = Judgment.objects.values("item", "rater").annotate(count=Count("pk"))
    assert {row["count"] for row in by_rater} == {1}


def test_twenty_leases_at_once_share_what_there_is():
    raters = [make_rater() for _ in range(THREADS)]
    campaign = make_campaign(items=10, raters=raters, overlap=2)
    leased = together(lambda rater: lease_items(campaign, rater, 3), raters)
    assert sum(len(rows) for rows in leased) == 20
    by_item = Assignment.objects.values("item").annotate(count=Count("pk"))
    assert {row["count"] for row in by_item} == {2}


def test_items_that_another_is_just_judging_are_handed_out_when_that_is_stored():
    """And not taken for none at all: with the judgment counted, and the lease that it ends as well, they looked full."""
    first, second = make_rater(), make_rater()
    campaign = make_campaign(items=2, raters=[first, second], overlap=2)
    rows = [make_row(row) for row in lease_items(campaign, first, 2)]
    begun, done, seen = Event(), Event(), {}

    def act(rater):
        if rater == first:
            with transaction.atomic():
                record_judgments(first, rows)
                begun.set()
                seen["waited"] = not done.wait(0.7)
        else:
            assert begun.wait(30)
            seen["items"] = len(lease_items(campaign, second, 2))
            done.set()

    together(act, [first, second])
    assert seen == {"waited": True, "items": 2}


def test_tabs_of_one_rater_get_the_same_items():
    rater = make_rater()
    campaign = make_campaign(items=30, raters=[rater], overlap=5)
    leased = together(lambda person: [row.pk for row in lease_items(campaign, person, 5)], [rater] * 8)
    assert len({tuple(rows) for rows in leased}) == 1
    assert Assignment.objects.count() == 5


def test_a_submission_and_a_lease_of_one_rater_never_wait_for_each_other(monkeypatch):
    rater = make_rater()
    campaign = make_campaign(items=2, raters=[rater])
    first, second = lease_items(campaign, rater, 2)
    rows = [make_row(second), make_row(first, {}, action="skip")]
    begun, end = Event(), judgments.execute_prepared

    def end_slowly(statement, values):
        if statement == judgments.END and values[1] == "released":
            # The other was ended before this one; meanwhile the lease renews both.
            begun.set()
            time.sleep(0.7)
        return end(statement, values)

    monkeypatch.setattr(judgments, "execute_prepared", end_slowly)

    def act(what):
        if what == "submit":
            return [result.status for result in record_judgments(rater, rows)]
        assert begun.wait(30)
        return lease_items(campaign, rater, 2)

    assert together(act, ["submit", "lease"]) == [["stored", "stored"], []]
    assert set(Assignment.objects.values_list("pk", "state")) == {(first.pk, "released"), (second.pk, "judged")}


def test_one_id_posted_by_twenty_at_once_is_stored_once():
    rater = make_rater()
    held = lease_items(make_campaign(items=1, raters=[rater]), rater, 1)[0]
    row = make_row(held)
    results = together(lambda person: record_judgments(person, [row])[0].status, [rater] * THREADS)
    assert sorted(results) == ["duplicate"] * (THREADS - 1) + ["stored"]
    assert Judgment.objects.count() == 1


def test_one_id_for_different_assignments_is_stored_once():
    raters = [make_rater() for _ in range(8)]
    campaign = make_campaign(items=8, raters=raters)
    held = {rater: lease_items(campaign, rater, 1)[0] for rater in raters}
    shared = make_row(0)["id"]
    results = together(lambda rater: record_judgments(rater, [make_row(held[rater], id=shared)])[0].status, raters)
    assert sorted(results) == ["rejected"] * 7 + ["stored"]
    assert connection.vendor == "postgresql"
