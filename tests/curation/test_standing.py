import pytest
from django.db import IntegrityError, transaction

from curation.assignments import LeaseRefused, lease_items, left_for
from curation.campaigns import set_raters
from curation.gold import GoldRefused, mark_gold
from curation.judgments import record_judgments
from curation.models import Campaign, CampaignRater, Judgment, RaterState
from curation.standing import give_round, let_in, round_left, set_bars
from tests.curation.factories import make_campaign, make_curator, make_rater, make_row
from tests.curation.test_gold import FAIL, PASS, make_gold_campaign

pytestmark = pytest.mark.django_db

BARS = {"qualification_items": 0, "qualification_percent": 80, "pause_window": 0, "pause_percent": 70}


def make_barred(rater, *, items=30, gold=10, percent=50, **bars):
    campaign = make_gold_campaign(items=items, gold=gold, raters=[rater], percent=percent)
    set_bars(campaign, **BARS | bars, by=campaign.created_by)
    return campaign


def place_of(campaign, rater):
    return CampaignRater.objects.select_related("campaign", "rater").get(campaign=campaign, rater=rater)


def answer_gold(campaign, rater, *, right, wrong=0):
    """Lease one by one, answering so many gold items wrongly and then rightly; returns how many others came between."""
    others = 0
    while right or wrong:
        (held,) = lease_items(campaign, rater, 1)
        answers = FAIL if held.item.is_gold and wrong else PASS
        assert [result.status for result in record_judgments(rater, [make_row(held, answers)])] == ["stored"]
        if not held.item.is_gold:
            others += 1
        elif wrong:
            wrong -= 1
        else:
            right -= 1
    return others


def kinds(campaign):
    return [event.kind for event in campaign.events.all() if event.kind not in ("created", "opened", "raters")]


def test_qualification_round_comes_first_and_lets_in_who_passes():
    rater = make_rater()
    campaign = make_barred(rater, gold=10, qualification_items=5)
    assert place_of(campaign, rater).state == RaterState.QUALIFYING
    assert left_for(campaign, rater) == 5
    leased = lease_items(campaign, rater, 20)
    assert len(leased) == 5
    assert all(row.item.is_gold for row in leased)
    record_judgments(rater, [make_row(row, FAIL if place == 0 else PASS) for place, row in enumerate(leased[:4])])
    assert (left_for(campaign, rater), round_left(campaign, place_of(campaign, rater))) == (1, 1)
    assert [row.pk for row in lease_items(campaign, rater, 20)] == [leased[4].pk]
    record_judgments(rater, [make_row(leased[4], PASS)])
    place = place_of(campaign, rater)
    assert (place.state, place.measure) == (RaterState.RATING, {"right": 4, "of": 5, "percent": 80})
    assert place.qualified_at is not None
    assert any(not row.item.is_gold for row in lease_items(campaign, rater, 5))
    assert kinds(campaign)[-1] == "rater qualified"


def test_who_fails_is_told_why_and_a_curator_may_give_another_round_or_let_them_in():
    rater, curator = make_rater(), make_curator()
    campaign = make_barred(rater, gold=10, qualification_items=5)
    answer_gold(campaign, rater, right=3, wrong=2)
    with pytest.raises(LeaseRefused, match="3 of 5 answers were right, and 80% are asked for"):
        lease_items(campaign, rater, 5)
    assert left_for(campaign, rater) == 0
    assert Judgment.objects.count() == 5
    place = place_of(campaign, rater)
    assert place.state == RaterState.UNQUALIFIED
    assert give_round(place, by=curator)
    assert not give_round(place, by=curator)
    assert left_for(campaign, rater) == 5
    answer_gold(campaign, rater, right=2, wrong=3)
    place = place_of(campaign, rater)
    assert (place.state, place.measure["right"]) == (RaterState.UNQUALIFIED, 2)
    with pytest.raises(GoldRefused, match=r"needs 5 gold items that .* has not had, and 0 are left"):
        give_round(place, by=curator)
    assert let_in(place, by=curator)
    assert not let_in(place, by=curator)
    assert len(lease_items(campaign, rater, 5)) == 5
    assert kinds(campaign)[-4:] == [
        "rater did not qualify",
        "another round",
        "rater did not qualify",
        "rater let in",
    ]


def test_corrections_after_a_failed_round_do_not_pass_it():
    rater = make_rater()
    campaign = make_barred(rater, gold=5, qualification_items=5)
    leased = lease_items(campaign, rater, 5)
    rows = [make_row(row, FAIL) for row in leased]
    record_judgments(rater, rows)
    record_judgments(
        rater, [make_row(row, PASS, supersedes=wrong["id"]) for row, wrong in zip(leased, rows, strict=True)]
    )
    assert place_of(campaign, rater).state == RaterState.UNQUALIFIED


def test_corrections_within_a_round_count():
    rater = make_rater()
    campaign = make_barred(rater, gold=5, qualification_items=5)
    leased = lease_items(campaign, rater, 5)
    rows = [make_row(row, FAIL) for row in leased[:4]]
    record_judgments(rater, rows)
    record_judgments(
        rater, [make_row(row, PASS, supersedes=wrong["id"]) for row, wrong in zip(leased, rows, strict=False)]
    )
    record_judgments(rater, [make_row(leased[4], PASS)])
    assert place_of(campaign, rater).state == RaterState.RATING


def test_round_without_enough_gold_says_so_and_waits_for_a_curator():
    rater = make_rater()
    campaign = make_barred(rater, gold=5, qualification_items=5)
    record_judgments(rater, [make_row(row, {}, action="skip") for row in lease_items(campaign, rater, 2)])
    answer_gold(campaign, rater, right=3)
    with pytest.raises(LeaseRefused, match="a curator has to let you in"):
        lease_items(campaign, rater, 5)
    assert left_for(campaign, rater) == 0
    assert let_in(place_of(campaign, rater), by=make_curator())
    assert len(lease_items(campaign, rater, 5)) == 5


def test_round_asked_for_later_counts_what_was_answered_and_is_for_who_joins():
    rater, later = make_rater(), make_rater()
    campaign = make_gold_campaign(items=30, gold=6, raters=[rater], percent=50)
    answer_gold(campaign, rater, right=6)
    with pytest.raises(GoldRefused, match="A round of 7 needs as many gold items, and there are 6"):
        set_bars(campaign, **BARS | {"qualification_items": 7}, by=campaign.created_by)
    set_bars(campaign, **BARS | {"qualification_items": 6}, by=campaign.created_by)
    assert place_of(campaign, rater).state == RaterState.RATING
    set_raters(campaign, [rater, later], by=campaign.created_by)
    assert place_of(campaign, later).state == RaterState.QUALIFYING
    set_bars(campaign, **BARS, by=campaign.created_by)
    assert place_of(campaign, later).state == RaterState.RATING


def test_real_items_that_a_rater_holds_are_not_renewed_in_a_round():
    rater = make_rater()
    campaign = make_gold_campaign(items=30, gold=6, raters=[rater], percent=0)
    held = lease_items(campaign, rater, 4)
    set_bars(campaign, **BARS | {"qualification_items": 5}, by=campaign.created_by)
    leased = lease_items(campaign, rater, 10)
    assert len(leased) == 5
    assert all(row.item.is_gold for row in leased)
    # What was held is somebody's work, and stored.
    assert record_judgments(rater, [make_row(held[0])])[0].status == "stored"


def test_pause_waits_until_chance_does_not_explain_it():
    rater = make_rater()
    campaign = make_barred(rater, gold=20, pause_window=10, pause_percent=70)
    answer_gold(campaign, rater, right=0, wrong=4)
    assert place_of(campaign, rater).state == RaterState.RATING, "four answers say nothing yet"
    answer_gold(campaign, rater, right=0, wrong=1)
    place = place_of(campaign, rater)
    assert (place.state, place.measure) == (RaterState.PAUSED, {"right": 0, "of": 5, "percent": 70})
    with pytest.raises(LeaseRefused, match=r"of your last 5 answers .* 0 were right, and 70% are asked for"):
        lease_items(campaign, rater, 5)
    assert kinds(campaign)[-1] == "rater paused"


def test_rater_at_the_bar_is_not_paused_by_a_few_wrong_answers():
    rater = make_rater()
    campaign = make_barred(rater, gold=20, pause_window=10, pause_percent=70)
    answer_gold(campaign, rater, right=5)
    answer_gold(campaign, rater, right=0, wrong=5)  # 50%: the interval reaches 76%.
    assert place_of(campaign, rater).state == RaterState.RATING


def test_all_gold_answers_count_and_not_the_last_alone():
    """Seven wrong of 31 at a bar of 70% are what chance brings, also where all of them are among the last ten: a rule that
    looked at every ten for itself would pause here."""
    rater = make_rater()
    campaign = make_barred(rater, gold=31, items=40, pause_window=10, pause_percent=70)
    answer_gold(campaign, rater, right=24)
    answer_gold(campaign, rater, right=0, wrong=7)
    assert place_of(campaign, rater).state == RaterState.RATING


def test_pause_is_lifted_by_a_curator_and_measuring_begins_anew_and_late_work_is_kept():
    rater, curator = make_rater(), make_curator()
    campaign = make_barred(rater, gold=20, pause_window=10, pause_percent=70)
    answer_gold(campaign, rater, right=0, wrong=4)
    held = lease_items(campaign, rater, 6)
    gold = next(row for row in held if row.item.is_gold)
    record_judgments(rater, [make_row(gold, FAIL)])
    assert place_of(campaign, rater).state == RaterState.PAUSED
    others = [row for row in held if not row.item.is_gold]
    assert {result.status for result in record_judgments(rater, map_rows(others))} == {"stored"}
    assert let_in(place_of(campaign, rater), by=curator)
    assert kinds(campaign)[-1] == "pause lifted"
    answer_gold(campaign, rater, right=0, wrong=2)
    assert place_of(campaign, rater).state == RaterState.RATING


def map_rows(leased):
    return [make_row(row) for row in leased]


def test_other_raters_and_campaigns_are_not_touched_by_a_pause():
    rater, other = make_rater(), make_rater()
    campaign = make_barred(rater, gold=10, pause_window=5)
    elsewhere = make_campaign(items=2, raters=[rater])
    set_raters(campaign, [rater, other], by=campaign.created_by)
    answer_gold(campaign, rater, right=0, wrong=5)
    assert len(lease_items(elsewhere, rater, 2)) == len(lease_items(campaign, other, 2)) == 2


def test_gold_made_known_differently_is_measured_by_what_is_known_now():
    rater = make_rater()
    campaign = make_barred(rater, gold=6, pause_window=6)
    leased = [row for row in lease_items(campaign, rater, 12) if row.item.is_gold]
    record_judgments(rater, [make_row(row, FAIL) for row in leased[:4]])
    for row in leased:
        mark_gold(row.item, FAIL, by=campaign.created_by)
    record_judgments(rater, [make_row(leased[4], FAIL)])
    assert place_of(campaign, rater).state == RaterState.RATING


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"qualification_items": 51}, "campaign_qualification_in_range"),
        ({"qualification_percent": 0}, "campaign_qualification_in_range"),
        ({"pause_window": 4}, "campaign_pause_in_range"),
        ({"pause_percent": 101}, "campaign_pause_in_range"),
    ],
)
def test_database_refuses_bars_out_of_range(wrong, name):
    campaign = make_campaign()
    with pytest.raises(IntegrityError, match=name), transaction.atomic():
        Campaign.objects.filter(pk=campaign.pk).update(**wrong)
