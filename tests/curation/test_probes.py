"""Asking a rater again what they judged before: whether they say the same, and whether they lean to one side."""

import pytest
from django.db import IntegrityError, connection, transaction
from django.urls import reverse

from curation import probes
from curation.assignments import lease_items, left_for
from curation.campaigns import create_campaign, create_compare_campaign, create_pick_campaign
from curation.gold import GoldRefused, mark_gold, set_gold_percent
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.mixing import gold_among
from curation.models import Assignment, Campaign, CampaignRater, Item, Judgment, Probe, Verdict
from curation.probes import consistency_by_rater, set_probe_percent
from curation.statistics import Share, progress_of
from tests.curation.factories import make_batch, make_campaign, make_curator, make_rater, make_row
from tests.curation.test_leases import expire, make_pairs
from tests.curation.test_pages import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def few_between(monkeypatch):
    monkeypatch.setattr(probes, "LEAST_BETWEEN", 5)


def ask_again(campaign, percent=10):
    set_probe_percent(campaign, percent, by=campaign.created_by)
    campaign.refresh_from_db()
    return campaign


def is_probe(row):
    return Probe.objects.filter(item=row.item_id).exists()


def rate(campaign, rater, says, again=None, count=10):
    """The rater judges all there is: by `says` (assignment -> answers), and what is asked again by `again`. Returns how many
    of each."""
    done = [0, 0]
    while leased := lease_items(campaign, rater, count):
        rows = []
        for row in leased:
            asked = is_probe(row)
            done[asked] += 1
            rows.append(make_row(row, (again or says)(row) if asked else says(row)))
        assert {result.status for result in record_judgments(rater, rows)} == {"stored"}
    return done


def passes(row):
    return {"alignment": "pass"}


def fails(row):
    return {"alignment": "fail"}


def test_rater_is_asked_again_as_often_as_chosen_and_it_decides_nothing():
    rater = make_rater()
    campaign = ask_again(make_campaign(items=60, raters=[rater]))
    items, asked = rate(campaign, rater, passes, fails)
    assert items == 60
    assert 4 <= asked <= 7
    assert set(Verdict.objects.values_list("outcome", "judgments")) == {("accepted", 1)}
    assert Verdict.objects.count() == 60
    assert set(campaign.items.to_decide().values_list("judged", "is_open")) == {(1, False)}
    progress = progress_of([campaign])[campaign.pk]
    assert (progress.items, progress.done, progress.judgments, progress.wanted) == (60, 60, 60, 60)
    assert consistency_by_rater(campaign) == {rater.pk: (Share(0, asked), Share(0, 0))}
    assert left_for(campaign, rater) == 0
    assert list(problems()) == []


def test_what_is_asked_again_looks_like_any_item_and_came_long_enough_ago():
    rater, other = make_rater(), make_rater()
    campaign = ask_again(make_campaign(items=40, raters=[rater, other], overlap=2))
    rate(campaign, rater, passes)
    rate(campaign, other, passes)
    rows = list(Probe.objects.select_related("item", "of"))
    assert {row.rater for row in rows} == {rater, other}
    for row in rows:
        assert (row.item.prompt_id, row.item.bucket) == (row.of.prompt_id, row.of.bucket)
        samples = [list(item.item_samples.values_list("slot", "sample")) for item in (row.item, row.of)]
        assert samples[0] == samples[1]
        first = Judgment.objects.get(item=row.of, rater=row.rater)
        again = Judgment.objects.get(item=row.item, rater=row.rater)
        between = Judgment.objects.filter(
            rater=row.rater, received_at__gt=first.received_at, received_at__lt=again.received_at
        )
        assert between.count() >= 5
    assert len({(row.of_id, row.rater_id) for row in rows}) == len(rows)


def test_nothing_is_asked_again_where_no_rate_is_chosen_or_nothing_else_is_left():
    rater = make_rater()
    campaign = make_campaign(items=30, raters=[rater])
    rate(campaign, rater, passes)
    ask_again(campaign)
    assert lease_items(campaign, rater, 100) == []
    assert not Probe.objects.exists()


def test_correction_of_the_first_answer_counts():
    rater = make_rater()
    campaign = ask_again(make_campaign(items=40, raters=[rater]))
    _, asked = rate(campaign, rater, passes, fails)
    first = Judgment.objects.filter(item__probes__isnull=False).first()
    record_judgments(rater, [make_row(first.assignment_id, {"alignment": "fail"}, supersedes=str(first.pk))])
    assert consistency_by_rater(campaign)[rater.pk].same == Share(1, asked)
    again = Judgment.objects.filter(item__probe__isnull=False).first()
    record_judgments(rater, [make_row(again.assignment_id, {}, action="undo", supersedes=str(again.pk))])
    assert consistency_by_rater(campaign)[rater.pk].same.n == asked - 1
    assert list(problems()) == []


def test_comparison_is_asked_again_with_the_sides_swapped():
    leaning, fair = make_rater(), make_rater()
    campaign = create_compare_campaign("A", make_pairs(40), by=make_curator(), overlap=2, raters=[leaning, fair])
    ask_again(campaign)
    rate(campaign, leaning, lambda row: {"preference": "left"})
    rate(campaign, fair, lambda row: {"preference": ("left", "right")[row.order[0]]})
    for row in Probe.objects.all():
        orders = [Assignment.objects.get(item=item, rater=row.rater).order for item in (row.of_id, row.item_id)]
        assert orders[0] == orders[1][::-1]
    found = consistency_by_rater(campaign)
    asked = {rater: Probe.objects.filter(rater=rater).count() for rater in (leaning, fair)}
    # Both times of a pair are worth one choice.
    for rater, left in ((leaning, 2), (fair, 1)):
        n = asked[rater]
        assert found[rater.pk] == (Share(n * (rater == fair), n), Share(left * n, 2 * n, n))
    assert found[leaning.pk].left.interval == Share(asked[leaning], asked[leaning]).interval
    # Sides of the others stay balanced.
    shown = Assignment.objects.filter(rater=fair, item__probe=None).values_list("order", flat=True)
    assert sorted(map(tuple, shown)) == [(0, 1)] * 20 + [(1, 0)] * 20
    assert list(problems()) == []


def test_pair_is_worth_one_choice_whichever_times_a_side_was_chosen():
    def leaning(pairs):
        squares = sum(n**2 for _, n in pairs)
        return probes._leaning(
            {"left": sum(k for k, _ in pairs), "sided": sum(n for _, n in pairs), "sidedsq": squares}
        )

    twenty = leaning([(2, 2)] * 20)
    assert (twenty.k, twenty.n, twenty.worth) == (40, 40, 20)
    assert [round(end) for end in twenty.interval] == [84, 100]
    assert leaning([(1, 1), (0, 0), (0, 1)]).worth == 2
    assert leaning([(0, 0)]).interval is None
    assert leaning([]) == Share(0, 0)


def test_lease_of_a_probe_that_ran_out_is_taken_again():
    rater = make_rater()
    campaign = ask_again(make_campaign(items=60, raters=[rater]))
    while held := lease_items(campaign, rater, 10):
        if Probe.objects.exists():
            break
        record_judgments(rater, [make_row(row) for row in held])
    expire(*held)
    again = lease_items(campaign, rater, 10)
    assert {row.pk for row in again} == {row.pk for row in held}
    assert Probe.objects.count() == sum(map(is_probe, again)) > 0


def test_who_asks_for_one_at_a_time_gets_all_and_is_asked_again_among_them():
    rater = make_rater()
    campaign = ask_again(make_campaign(items=80, raters=[rater]))
    while held := lease_items(campaign, rater, 1):
        record_judgments(rater, [make_row(row) for row in held])
    assert campaign.items.filter(is_open=True).count() == 0
    assert Probe.objects.filter(rater=rater).count() > 2
    # Nothing else is left to do, so that nothing is asked again.
    assert not Assignment.objects.live().filter(rater=rater).exists()


def test_gold_and_probes_come_beside_each_other():
    rater = make_rater()
    campaign = make_campaign(items=70, raters=[rater])
    for item in campaign.items.order_by("-position")[:10]:
        mark_gold(item, {"alignment": "pass"}, by=campaign.created_by)
    set_gold_percent(campaign, 10, by=campaign.created_by)
    ask_again(campaign)
    rate(campaign, rater, passes)
    gold = Judgment.objects.filter(item__gold__isnull=False)
    asked = Judgment.objects.filter(item__probe__isnull=False)
    assert (gold.count() >= 6, asked.count() >= 3) == (True, True)
    # No gold item is asked again: its answer is known anyway.
    assert not Probe.objects.filter(of__is_gold=True).exists()
    place = CampaignRater(campaign_id=1, rater_id=2)
    assert gold_among(place, 10, 200) != gold_among(place, 10, 200, "probes")


def test_database_keeps_probes_and_asks_once():
    rater = make_rater()
    campaign = ask_again(make_campaign(items=40, raters=[rater]))
    rate(campaign, rater, passes)
    probe = Probe.objects.first()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        probe.delete()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Probe.objects.update(rater=make_rater())
    other = Item.objects.filter(probe=None).first()
    with pytest.raises(IntegrityError, match="probe_once_a_rater"), transaction.atomic():
        Probe.objects.create(item=other, of=probe.of, rater=rater)
    with pytest.raises(IntegrityError, match="campaign_probes_at_most_a_tenth"), transaction.atomic():
        Campaign.objects.update(probe_percent=11)


def test_rate_is_refused_where_it_makes_no_sense():
    campaign = make_campaign()
    with pytest.raises(GoldRefused, match="Between 0 and 10%"):
        set_probe_percent(campaign, 11, by=campaign.created_by)
    campaign = ask_again(make_campaign(items=40, raters=[rater := make_rater()]))
    rate(campaign, rater, passes)
    with pytest.raises(GoldRefused, match="asks one rater again"):
        mark_gold(Probe.objects.first().item, {"alignment": "pass"}, by=campaign.created_by)
    assert list(problems()) == []
    Item.objects.filter(probe__isnull=False).update(is_gold=False)
    assert f"{Probe.objects.count()} items that ask a rater again have a place to fill." in list(problems())
    pick = create_pick_campaign("P", by=make_curator(), batches=[make_batch(["a"], each=2)])
    with pytest.raises(GoldRefused, match="pick"):
        set_probe_percent(pick, 5, by=pick.created_by)


def test_curator_chooses_the_rate_and_sees_how_raters_repeat_themselves():
    rater, curator = make_rater(), make_curator()
    campaign = make_campaign(items=60, raters=[rater])
    client = signed_in(curator)
    bars = {"gold_percent": 10, "qualification_items": 0, "qualification_percent": 80, "pause_window": 0}
    bars |= {"pause_percent": 70, "probe_percent": 10}
    page = client.post(reverse("campaign_quality", args=[campaign.slug]), bars, follow=True).content.decode()
    assert "How raters are measured was changed" in page
    campaign.refresh_from_db()
    page = client.get(campaign.get_absolute_url()).content.decode()
    assert "Says the same again" not in page
    assert "Rate of items that are asked again set to 10%" in page
    _, asked = rate(campaign, rater, passes)
    page = client.get(campaign.get_absolute_url()).content.decode()
    assert "Says the same again" in page
    assert f'100% <span class="muted">[{Share(asked, asked).interval[0]:.0f}, 100]' in page
    # Where it was asked again the sample's page says so, but not to who rates there.
    sample = Probe.objects.first().item.item_samples.get().sample
    assert "asked again" in client.get(sample.get_absolute_url()).content.decode()
    rater.roles = ["rater", "curator"]
    rater.save()
    own = signed_in(rater).get(sample.get_absolute_url())
    assert "asked again" not in own.content.decode()
    assert len(own.context["judged"]) == 1


def test_grid_may_hold_what_is_asked_again():
    rater = make_rater()
    batch = make_batch([f"prompt {number}" for number in range(20)], each=2)
    campaign = create_campaign("alignment", name="A", by=make_curator(), batches=[batch], raters=[rater], open_now=True)
    ask_again(campaign)
    seen = []
    while leased := lease_items(campaign, rater, 12, together=True):
        seen += leased
        assert {r.status for r in record_judgments(rater, [make_row(row) for row in leased])} == {"stored"}
    assert len(seen) == 40 + Probe.objects.count() > 40
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM curation_item i JOIN curation_probe p ON p.item_id = i.id WHERE i.is_open")
        assert cursor.fetchone() == (0,)
