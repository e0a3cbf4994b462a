from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.models import Role
from curation import tallies
from curation.accuracy import accuracy_by_rater, accuracy_told
from curation.assignments import lease_items
from curation.campaigns import close_campaign, create_compare_campaign
from curation.judgments import record_judgments
from curation.models import Judgment
from curation.work import DAYS, _left_in_words, desk_of
from tests.accounts.factories import make_person
from tests.curation.factories import judge_all, make_campaign, make_curator, make_rater, make_row
from tests.curation.test_gold import make_gold_campaign
from tests.curation.test_habits import answer
from tests.curation.test_leases import make_pairs
from tests.curation.test_standing import answer_gold, make_barred

pytestmark = pytest.mark.django_db


def page(client, user):
    client.force_login(user)
    response = client.get(reverse("my_work"))
    assert response.status_code == 200
    return response.content.decode()


def test_it_says_what_was_done_when_and_how_fast(client):
    rater, other = make_rater(), make_rater()
    first, second = (make_campaign(items=12, raters=[rater, other], overlap=2) for _ in range(2))
    answer(first, rater, ["pass"] * 5, 3)
    answer(second, rater, ["pass"] * 3, 9)
    answer(first, other, ["fail"] * 7, 1)
    desk = desk_of(rater)
    assert {work.campaign: (work.judged, work.median_seconds) for work in desk.done} == {
        first: (5, 3.0),
        second: (3, 9.0),
    }
    assert (desk.judged, desk.median_seconds, desk.recent) == (8, 3.0, 8)
    assert len(desk.days) == DAYS
    content = page(client, rater)
    assert first.name in content
    assert "Continue rating" in content


def test_days_are_those_on_which_judgments_came_in_the_zone_of_the_workspace():
    rater = make_rater()
    campaign = make_campaign(items=3, raters=[rater])
    judge_all(campaign, rater)
    # 23:00 in UTC is 13:00 of the next day there, fourteen hours ahead.
    times = [
        datetime(2026, 3, 1, 23, tzinfo=UTC),
        datetime(2026, 3, 1, 9, tzinfo=UTC),
        datetime(2026, 2, 10, 9, tzinfo=UTC),
    ]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        for row, at in zip(Judgment.objects.all(), times, strict=True):
            cursor.execute("UPDATE curation_judgment SET received_at = %s WHERE id = %s", [at, row.pk])
        cursor.execute("SET LOCAL session_replication_role = origin")
    tallies.fill(campaign)
    with timezone.override("Pacific/Kiritimati"):
        days = desk_of(rater, datetime(2026, 3, 3, 1, tzinfo=UTC)).days
    assert (days[0][0].isoformat(), days[-1][0].isoformat()) == ("2026-02-18", "2026-03-03")
    assert {day.isoformat(): count for day, count in days if count} == {"2026-03-01": 1, "2026-03-02": 1}


def test_agreement_is_rough_while_others_may_still_be_followed_and_whole_afterwards(client):
    rater, other = make_rater(), make_rater()
    campaign = make_campaign(items=60, raters=[rater, other], overlap=2)
    answer(campaign, rater, ["pass"] * 60)
    answer(campaign, other, ["pass"] * 40 + ["fail"] * 9)
    (work,) = desk_of(rater).campaigns
    assert (work.agreement, work.between) == (None, None)
    assert "told from 50 on" in page(client, rater)
    answer(campaign, other, ["fail"] * 11)
    (work,) = desk_of(rater).campaigns
    # Wilson's interval of 40 of 60 is 54.1 to 77.3.
    assert (work.agreement, work.between) == (None, (50, 80))
    assert "between 50 and 80%" in page(client, rater)
    close_campaign(campaign, by=campaign.created_by)
    (work,) = desk_of(rater).campaigns
    assert (work.agreement.k, work.agreement.n) == (40, 60)
    assert "67%" in page(client, rater)


def test_blind_comparison_gives_nothing_away(client):
    raters = [make_rater(), make_rater()]
    campaign = create_compare_campaign("Old or new", make_pairs(4), by=make_curator(), raters=raters, overlap=2)
    for rater in raters:
        judge_all(campaign, rater, {"preference": "left"})
    (work,) = desk_of(raters[0]).campaigns
    assert (work.judged, work.agreement, work.between) == (4, None, None)
    content = page(client, raters[0])
    assert "not told: a blind comparison" in content
    assert not {"Baseline", "Candidate", "baseline", "candidate"} & set(content.split())


def test_gold_is_told_by_tens_and_a_standing_with_its_way_on(client):
    rater = make_rater()
    campaign = make_barred(rater, items=30, gold=10, percent=50, qualification_items=10, qualification_percent=80)
    content = page(client, rater)
    assert "Begin the qualification round" in content
    assert "10 are left" in content
    answer_gold(campaign, rater, right=4)
    (work,) = desk_of(rater).campaigns
    assert work.accuracy is None
    assert "6 are left" in work.standing
    answer_gold(campaign, rater, right=1, wrong=5)
    (work,) = desk_of(rater).campaigns
    assert (work.accuracy.k, work.accuracy.n) == (5, 10)
    content = page(client, rater)
    assert "You did not pass the qualification round" in content
    assert "Read the guidelines" in content


def test_taking_answers_back_does_not_tell_which_items_are_gold():
    rater = make_rater()
    campaign = make_gold_campaign(items=40, gold=12, raters=[rater], percent=33)
    said = {}
    while held := lease_items(campaign, rater, 8):
        rows = [make_row(row) for row in held]
        record_judgments(rater, rows)
        said |= dict(zip(held, rows, strict=True))

    def told():
        (work,) = desk_of(rater).campaigns
        assert accuracy_told(campaign, rater) == work.accuracy
        return work.accuracy.k, work.accuracy.n

    assert told() == (10, 10)
    for assignment, row in said.items():
        undo = make_row(assignment, {}, action="undo", supersedes=row["id"])
        record_judgments(rater, [undo])
        assert told() == (10, 10)
        record_judgments(rater, [make_row(assignment, {"alignment": "fail"}, supersedes=undo["id"])])
        assert told() == (10, 10)
    # Curators see what stands.
    assert accuracy_by_rater(campaign)[rater.pk].k == 0
    close_campaign(campaign, by=campaign.created_by)
    campaign.refresh_from_db()
    assert told() == (0, 10)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (0, ""),
        (-1, ""),
        (9, "A few items are left"),
        (10, "At least 10 items are left"),
        (1239, "At least 1,230 items are left"),
    ],
)
def test_what_is_left_moves_in_steps(items, words):
    assert _left_in_words(items) == words


def test_as_many_queries_for_many_campaigns_as_for_one(client):
    counts = []
    for campaigns in (1, 5):
        rater = make_rater()
        for _ in range(campaigns):
            judge_all(make_campaign(items=2, raters=[rater]), rater)
            make_barred(rater, items=12, gold=5, percent=50, qualification_items=5)
        client.force_login(rater)
        with CaptureQueriesContext(connection) as captured:
            client.get(reverse("my_work"))
        counts.append(len(captured))
        assert not [
            query for query in captured if "curation_judgment" in query["sql"] and "is_gold" not in query["sql"]
        ]
    assert counts[0] == counts[1]


def test_nothing_yet_says_so_and_others_have_no_such_page(client):
    rater = make_rater()
    content = page(client, rater)
    assert "You are on no campaign yet" in content
    assert 'hx-select="#my-work" hx-trigger="every 30s"' in content
    campaign = make_campaign(items=2, raters=[rater])
    content = page(client, rater)
    assert "Start rating" in content
    assert "every 30s" not in content
    assert "You judged nothing yet" in content
    close_campaign(campaign, by=campaign.created_by)
    content = page(client, rater)
    assert "Nothing waits for you" in content
    assert 'hx-trigger="every 30s"' in content
    client.force_login(make_person(Role.CURATOR))
    assert client.get(reverse("my_work")).status_code == 403


def test_a_removed_rater_keeps_what_they_did_and_is_offered_nothing(client):
    rater = make_rater()
    campaign = make_campaign(items=4, raters=[rater])
    answer(campaign, rater, ["pass"])
    campaign.memberships.filter(rater=rater).update(removed_at=timezone.now() - timedelta(minutes=1))
    desk = desk_of(rater)
    assert [work.judged for work in desk.done] == [1]
    assert desk.waiting == []
    assert "Nothing waits for you" in page(client, rater)
