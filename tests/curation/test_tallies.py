import io
from collections import Counter
from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from config.home import rating, stations
from curation import tallies
from curation.adjudications import adjudicate, undo_adjudication, waiting_in
from curation.assignments import _gold_ahead, done_by, lease_items, left_for
from curation.exclusions import set_excluded
from curation.gold import mark_gold, retire_gold
from curation.judgments import record_judgments
from curation.models import Assignment, Item, Judgment, Tally, TallyKind, Verdict
from curation.statistics import judgments_curve, median_of, progress_of, rater_rows, recent_rate, seconds_by_rater
from tests.curation.factories import judge_all, make_campaign, make_comparison, make_rater, make_row
from tests.curation.test_leases import expire, make_pairs

pytestmark = pytest.mark.django_db


def judge(rater, row, value="pass", **fields):
    answers = {"alignment": value} if fields.get("action", "answer") == "answer" else {}
    made = make_row(row, answers, **fields)
    (result,) = record_judgments(rater, [made])
    assert result.status == "stored", result
    return made["id"]


@pytest.fixture
def worked():
    """Three raters and five items: answers, a correction, an undo, a skip, a flag, a late answer and a curator's decision."""
    raters = [make_rater() for _ in range(3)]
    campaign = make_campaign(items=5, raters=raters, overlap=2)
    first, second, _third = raters
    held = lease_items(campaign, first, 5)
    corrected = judge(first, held[0])
    judge(first, held[0], "fail", supersedes=corrected)
    undone = judge(first, held[1])
    judge(first, held[1], action="undo", supersedes=undone)
    judge(first, held[2], action="skip")
    expire(held[3])
    judge(first, held[3])
    theirs = lease_items(campaign, second, 5)
    judge(second, theirs[0])
    judge(second, theirs[2], action="flag")
    judge(second, theirs[3], "fail")
    decided = adjudicate(held[0].item, by=campaign.created_by, answers={"alignment": "pass"})
    undo_adjudication(decided, by=campaign.created_by)
    mark_gold(theirs[3].item, {"alignment": "pass"}, by=campaign.created_by)
    retire_gold(mark_gold(theirs[1].item, {"alignment": "pass"}, by=campaign.created_by), by=campaign.created_by)
    return campaign, raters


def test_counts_are_what_the_rows_add_up_to_before_and_after_they_are_folded(worked):
    campaign, _ = worked
    assert tallies.differences(campaign) == []
    before = tallies.read([campaign.pk], *TallyKind)
    loose = Tally.objects.filter(is_folded=False).count()
    assert loose > 0
    assert tallies.fold() >= loose
    assert tallies.fold() == 0
    assert not Tally.objects.filter(is_folded=False).exists()
    assert Tally.objects.count() == len(before)
    assert tallies.read([campaign.pk], *TallyKind) == before
    assert tallies.differences(campaign) == []


def test_counts_say_who_did_what(worked):
    campaign, (first, second, third) = worked
    rows = {row["rater"]: row for row in rater_rows(campaign)}
    # What was said of gold is said, too.
    figures = ("answers", "skips", "flags", "late")
    assert {rater: tuple(row[name] for name in figures) for rater, row in rows.items()} == {
        first: (2, 1, 0, 1),
        second: (2, 0, 1, 0),
        third: (0, 0, 0, 0),
    }
    assert [(row["agreement"].k, row["agreement"].n) for row in (rows[first], rows[second])] == [(0, 1), (0, 1)]
    assert rows[third]["agreement"] is None
    assert {row["median_seconds"] for row in (rows[first], rows[second])} == {2.0}
    assert rows[second]["last_at"] == Judgment.objects.filter(rater=second).latest("received_at").received_at
    assert waiting_in([campaign])[campaign.pk].split == 1
    assert waiting_in([campaign])[campaign.pk].flagged == 1
    progress = progress_of([campaign])[campaign.pk]
    assert (progress.items, progress.done, progress.judgments, progress.wanted) == (4, 1, 2, 8)
    # What was corrected, taken back or became gold is in neither.
    assert (
        tallies.total([campaign.pk], TallyKind.MINUTE) == judgments_curve(campaign)["series"][0]["points"][-1][1] == 2
    )


def test_left_and_done_are_what_a_rater_could_count(worked):
    campaign, raters = worked
    for rater in raters:
        own = Assignment.objects.live().filter(rater=rater, item__is_open=True).count()
        free = campaign.items.free_for(rater, campaign.overlap).count()
        assert left_for(campaign, rater) == own + free + _gold_ahead(
            campaign, campaign.memberships.get(rater=rater), rater, free
        )
        through = Assignment.objects.filter(rater=rater, state__in=["judged", "released"])
        assert done_by(campaign, rater) == through.count()
    assert [done_by(campaign, rater) for rater in raters] == [3, 3, 0]
    assert rating(raters[0])["ever"] == 2
    (row,) = rating(raters[0])["campaigns"]
    assert (row["campaign"], row["left"]) == (campaign, left_for(campaign, raters[0]))


def test_places_that_others_hold_are_not_left():
    first, second, _third = raters = [make_rater() for _ in range(3)]
    campaign = make_campaign(items=4, raters=raters, overlap=2)
    lease_items(campaign, first, 2)
    judge(second, lease_items(campaign, second, 1)[0])
    assert [left_for(campaign, rater) for rater in raters] == [4, 3, 3]
    expire(*Assignment.objects.filter(rater=first))
    assert [left_for(campaign, rater) for rater in raters] == [4, 3, 4]


def test_comparison_counts_sides_as_they_were_shown():
    campaign = make_comparison(make_pairs(3), ["candidate", "baseline", "tie"])
    assert tallies.differences(campaign) == []
    (row,) = rater_rows(campaign)
    lefts = Judgment.objects.filter(answers__preference="left").count()
    assert (row["left"].k, row["left"].n, row["agreement"]) == (lefts, 2, None)


def test_verify_finds_a_wrong_count_and_recount_makes_it_right(worked):
    campaign, _ = worked
    Item.objects.filter(campaign=campaign, position=4).update(bucket="elsewhere")
    with pytest.raises(CommandError):
        call_command("verify", stdout=(said := io.StringIO()))
    assert "bucket “elsewhere”" in said.getvalue()
    call_command("recount", stdout=(said := io.StringIO()))
    assert said.getvalue() == f"{campaign}: 2 counts were wrong.\n"
    call_command("recount", stdout=(said := io.StringIO()))
    assert said.getvalue() == f"{campaign}: all counts are right.\n"
    assert tallies.differences(campaign) == []


def test_nothing_is_counted_for_what_is_not_stored():
    rater = make_rater()
    campaign = make_campaign(items=1, raters=[rater])
    held = lease_items(campaign, rater, 1)[0]
    before = tallies.read([campaign.pk], *TallyKind)
    rows = [make_row(held, {"alignment": "maybe"}), make_row(held, id="no uuid"), make_row(10**9)]
    assert {result.status for result in record_judgments(rater, rows)} == {"rejected"}
    assert tallies.read([campaign.pk], *TallyKind) == before
    row = make_row(held)
    assert [result.status for result in record_judgments(rater, [row, row])] == ["stored", "duplicate"]
    assert tallies.total([campaign.pk], TallyKind.ENDED) == 1


def test_long_campaign_has_its_curve_from_the_minutes():
    rater = make_rater()
    campaign = make_campaign(items=1, raters=[rater])
    Tally.objects.bulk_create(
        Tally(campaign=campaign, what=TallyKind.MINUTE, key=str(29_000_000 + 3 * number), n=20) for number in range(300)
    )
    Tally.objects.create(campaign=campaign, what=TallyKind.SEEN, rater_id=rater.pk, n=6000)
    points = judgments_curve(campaign)["series"][0]["points"]
    assert (points[0], points[-1], len(points)) == ([0.0, 0], [round(898 / 60, 3), 6000], 121)
    assert points == sorted(points)
    # Half of the time, half of the judgments; each point says what there was until then.
    assert points[60] == [round(449 / 60, 3), 3000]
    # A pause of as long again, and a last judgment: nothing in between.
    Tally.objects.create(campaign=campaign, what=TallyKind.MINUTE, key=str(29_000_000 + 2 * 898 - 1), n=1)
    points = judgments_curve(campaign)["series"][0]["points"]
    assert [points[place][1] for place in (60, 61, 119, 120)] == [6000, 6000, 6000, 6001]


def test_judgments_that_came_at_once_can_be_seen():
    rater = make_rater()
    campaign = make_campaign(items=2, raters=[rater])
    judge_all(campaign, rater, {"alignment": "pass"})
    (begin, _), *_, (end, count) = judgments_curve(campaign)["series"][0]["points"]
    assert (begin, count) == (0.0, 2)
    assert end > 0


def test_a_few_minutes_of_a_long_campaign_are_a_point_each():
    rater = make_rater()
    campaign = make_campaign(items=1, raters=[rater])
    for minute in (1, 2, 4):
        Tally.objects.create(campaign=campaign, what=TallyKind.MINUTE, key=str(29_000_000 + minute), n=2000)
    Tally.objects.create(campaign=campaign, what=TallyKind.SEEN, rater_id=rater.pk, n=6000)
    points = judgments_curve(campaign)["series"][0]["points"]
    assert points == [[0.0, 0], [1.0, 2000], [2.0, 4000], [3.0, 4000], [4.0, 6000]]


def test_what_is_taken_back_corrected_or_excluded_leaves_the_curve_and_the_pace_as_it_leaves_progress(client):
    raters = first, second, third = [make_rater() for _ in range(3)]
    campaign = make_campaign(items=10, raters=raters, overlap=2)
    held = lease_items(campaign, first, 10)
    said = [judge(first, row) for row in held]
    for row, earlier in zip(held[:4], said, strict=False):
        undone = judge(first, row, action="undo", supersedes=earlier)
        judge(first, row, "fail", supersedes=undone)
    judge(first, held[4], action="undo", supersedes=said[4])
    late = lease_items(campaign, third, 1)[0]
    expire(late)
    # The two others fill the item; what comes after that is beyond what it needs.
    for row in lease_items(campaign, second, 10):
        judge(second, row)
    judge(third, late)

    def figures():
        progress = progress_of([campaign])[campaign.pk]
        curve = judgments_curve(campaign)["series"][0]["points"][-1][1]
        return progress.judgments, progress.beyond, curve, tallies.total([campaign.pk], TallyKind.MINUTE)

    def page():
        client.force_login(campaign.created_by)
        return client.get(campaign.get_absolute_url()).content.decode()

    assert figures() == (19, 1, 20, 20)
    assert "1 judgment more came to items that had all of theirs. It counts for what is decided." in page()
    assert "Those that are excluded are among them" not in page()
    place = campaign.memberships.get(rater=first)
    set_excluded(place, excluded=True, reason="Slept", by=campaign.created_by)
    assert figures() == (11, 0, 11, 11)
    assert "more came to items" not in page()
    # Of answers, and of judgments under each revision, they are a part, which the page says.
    assert "those that are excluded, which are not among the campaign’s judgments" in page()
    assert "Those that are excluded are among them" in page()
    assert tallies.differences(campaign) == []


@pytest.mark.parametrize(
    ("came", "least", "most"),
    # The first came so many minutes ago, in a minute of which a part may have passed before; the minute of now is not over.
    [
        ({2: 60, 0: 60}, 40, 60),
        ({0: 7}, 7, 7),
        ({9: 50, 0: 45}, 9.5, 95 / 9),
        ({600: 300, 9: 50, 0: 45}, 9.5, 95 / 9),
        ({600: 300}, 0, 0),
    ],
    ids=["two minutes", "one", "ten", "long ago", "pause"],
)
def test_pace_of_a_campaign_that_has_just_begun_is_over_its_time_alone(came, least, most):
    campaign = make_campaign(items=1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT floor(extract(epoch FROM now()) / 60)::bigint")
        (now,) = cursor.fetchone()
    for ago, n in came.items():
        Tally.objects.create(campaign=campaign, what=TallyKind.MINUTE, key=str(now - ago), n=n)
    assert least - 1e-9 <= recent_rate(campaign) <= most + 1e-9


def test_station_counts_what_is_accepted():
    rater = make_rater()
    campaign = make_campaign(items=3, raters=[rater])
    judge_all(campaign, rater)
    found = {station["label"]: station for station in stations()}
    assert found["Verdicts"]["count"] == 3 == Verdict.objects.filter(outcome="accepted").count()


@pytest.mark.parametrize(
    ("values", "middle"),
    [({}, None), ({1.5: 1}, 1.5), ({1.0: 1, 2.0: 1}, 1.5), ({3.0: 2, 1.0: 1}, 3.0), ({1.0: 2, 9.0: 2}, 5.0)],
)
def test_median_of_counted_values(values, middle):
    assert median_of(Counter(values)) == middle


@pytest.mark.parametrize("seconds", [[2], [1, 4], [9, 2, 2], [1, 2, 5, 30], [600, 1, 1, 700]])
def test_median_of_each_rater_is_that_of_their_seconds(seconds):
    rater, other = make_rater(), make_rater()
    campaign = make_campaign(items=len(seconds), raters=[rater, other], overlap=2)
    begun = datetime(2026, 11, 23, 9, tzinfo=UTC)
    for place, (leased, took) in enumerate(zip(lease_items(campaign, rater, 9), seconds, strict=True)):
        earlier = None
        # The first is thought over, which takes away what was counted.
        for each in (30.0, took) if place == 0 else (took,):
            times = {"shown_at": begun.isoformat(), "decided_at": (begun + timedelta(seconds=each)).isoformat()}
            earlier = judge(rater, leased, supersedes=earlier, **times)
    judge(other, lease_items(campaign, other, 1)[0])
    counts = seconds_by_rater(campaign)
    found = {row["rater"]: row["median_seconds"] for row in rater_rows(campaign)}
    assert found == {person: median_of(counts[person.pk]) for person in (rater, other)}
    assert found[rater] is not None


def test_figures_of_a_page_are_of_one_moment(worked, client):
    campaign, (_, _, third) = worked
    others = make_campaign(items=1, raters=[third])
    before = tallies.read([campaign.pk], TallyKind.OPEN, TallyKind.ENDED)
    with tallies.at_one_moment([campaign.pk], TallyKind.OPEN, TallyKind.ENDED):
        judge_all(campaign, third)
        assert tallies.read([campaign.pk], TallyKind.ENDED) == {
            key: n for key, n in before.items() if key.what == TallyKind.ENDED
        }
        # What was not asked for is read where it is.
        assert tallies.read([campaign.pk], TallyKind.ENDED, rater_id=third.pk)
        assert tallies.read([others.pk], TallyKind.OPEN)
        assert tallies.read([campaign.pk], TallyKind.PATTERN)
    assert tallies.read([campaign.pk], TallyKind.OPEN, TallyKind.ENDED) != before
    client.force_login(campaign.created_by)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(campaign.get_absolute_url()).status_code == 200
    # One for all, and one each for the medians, the last ten minutes and the marked words.
    assert sum("FROM curation_tally" in query["sql"] for query in queries) == 4


def test_migration_counts_what_was_there_before(worked):
    campaign, _ = worked
    expected = tallies.read([campaign.pk], *TallyKind)
    Tally.objects.all().delete()
    with connection.cursor() as cursor:
        names = (
            "0008_tallies",
            "0017_tally_of_hour",
            "0024_tally_of_revision",
            "0034_minutes_of_what_stands",
            "0035_gold_counts",
        )
        for name in names:
            cursor.execute(import_module(f"curation.migrations.{name}").FILL)
    # Revisions of questions came with their own count, and the squares of how many others answered (test_agreement).
    assert tallies.read([campaign.pk], *TallyKind) == {
        key: value for key, value in expected.items() if key.what not in (TallyKind.WORDING, TallyKind.SQUARES)
    }
