import json
import uuid
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from curation.assignments import lease_items
from curation.campaigns import close_campaign, open_campaign, set_raters
from curation.integrity import problems
from curation.judgments import TooManyJudgments, record_judgments
from curation.models import Assignment, Judgment, Verdict
from tests.curation.factories import make_campaign, make_curator, make_rater, make_row

pytestmark = pytest.mark.django_db


@pytest.fixture
def rater():
    return make_rater()


@pytest.fixture
def held(rater):
    """An assignment of the rater, alone in a campaign of overlap one."""
    return lease_items(make_campaign(items=1, raters=[rater]), rater, 1)[0]


def statuses(results):
    return [result.status for result in results]


def test_judgment_is_stored_with_its_verdict(rater, held):
    row = make_row(held)
    assert [tuple(result)[:3] for result in record_judgments(rater, [row])] == [(row["id"], "stored", "")]
    held.item.refresh_from_db()
    assert (held.item.judged, held.item.is_open) == (1, False)
    assert list(Verdict.objects.values_list("outcome", "judgments", "tallies")) == [
        ("accepted", 1, {"alignment": {"pass": 1}})
    ]
    assert Assignment.objects.get().state == "judged"
    assert Judgment.objects.get().shown_at.isoformat() == "2026-11-23T09:30:00+00:00"


def test_same_judgment_again_is_a_duplicate_and_another_under_its_id_is_refused(rater, held):
    row = make_row(held)
    record_judgments(rater, [row])
    assert statuses(record_judgments(rater, [row, row])) == ["duplicate", "duplicate"]
    other = {**row, "answers": {"alignment": "fail"}}
    assert [tuple(result)[:3] for result in record_judgments(rater, [other])] == [
        (row["id"], "rejected", "This id was used for another judgment.")
    ]
    assert Judgment.objects.count() == 1


def test_each_row_of_a_batch_is_judged_on_its_own(rater):
    first, second = lease_items(make_campaign(items=2, raters=[rater]), rater, 2)
    good, also_good = make_row(first), make_row(second, {"alignment": "fail"})
    results = record_judgments(rater, [good, "nonsense", make_row(second, {"alignment": "maybe"}), good, also_good])
    assert statuses(results) == ["stored", "rejected", "rejected", "duplicate", "stored"]
    assert Judgment.objects.count() == 2


def test_undo_reopens_the_item_and_a_new_answer_supersedes_the_undo(rater, held):
    answer = make_row(held)
    undo = make_row(held, {}, action="undo", supersedes=answer["id"], order=[], shown_at=None)
    record_judgments(rater, [answer, undo])
    held.item.refresh_from_db()
    assert (held.item.judged, held.item.is_open) == (0, True)
    assert Verdict.objects.get().outcome == "pending"
    again = lease_items(held.item.campaign, rater, 1)
    assert [row.pk for row in again] == [held.pk]
    assert str(again[0].chain[0].pk) == undo["id"]

    final = make_row(held, {"alignment": "fail"}, supersedes=undo["id"])
    assert statuses(record_judgments(rater, [final])) == ["stored"]
    assert Verdict.objects.get().outcome == "rejected"
    chain = dict(Judgment.objects.values_list("id", "supersedes"))
    assert {str(key): str(value) for key, value in chain.items()} == {
        answer["id"]: "None",
        undo["id"]: answer["id"],
        final["id"]: undo["id"],
    }


def test_answer_that_comes_with_its_undo_is_as_punctual_as_one_that_comes_after_it(rater, held):
    answer = make_row(held)
    record_judgments(rater, [answer])
    Assignment.objects.update(expires_at=Now() - timedelta(hours=1))
    undo = make_row(held, {}, action="undo", supersedes=answer["id"])
    record_judgments(rater, [undo, make_row(held, {"alignment": "fail"}, supersedes=undo["id"])])
    assert list(Judgment.objects.standing().values_list("answers", "late")) == [({"alignment": "fail"}, False)]


def test_second_answer_supersedes_the_first_and_counts_once(rater, held):
    record_judgments(rater, [make_row(held), make_row(held, {"alignment": "fail"})])
    held.item.refresh_from_db()
    assert held.item.judged == 1
    assert Verdict.objects.get().tallies == {"alignment": {"fail": 1}}
    assert list(Judgment.objects.standing().values_list("answers", "late")) == [({"alignment": "fail"}, False)]


@pytest.mark.parametrize(
    ("supersedes", "reason"),
    [
        (None, "An undo names the judgment that it takes back"),
        ("6a1f7a0e-3f0c-4d5c-9a51-0d4f5a3c2b11", "is not the latest one"),
        ("nonsense", "must be a UUID"),
    ],
)
def test_undo_of_the_wrong_thing_is_refused(rater, held, supersedes, reason):
    record_judgments(rater, [make_row(held)])
    (result,) = record_judgments(rater, [make_row(held, {}, action="undo", supersedes=supersedes)])
    assert result.status == "rejected"
    assert reason in result.reason


def test_undo_twice_is_refused(rater, held):
    answer = make_row(held)
    undo = make_row(held, {}, action="undo", supersedes=answer["id"])
    again = make_row(held, {}, action="undo", supersedes=undo["id"])
    assert statuses(record_judgments(rater, [answer, undo, again])) == ["stored", "stored", "rejected"]


@pytest.mark.parametrize("action", ["skip", "flag"])
def test_skip_and_flag_do_not_count(rater, held, action):
    (result,) = record_judgments(rater, [make_row(held, {}, action=action, reason="cut off")])
    assert result.status == "stored"
    held.item.refresh_from_db()
    assert (held.item.judged, held.item.is_open) == (0, True)
    assert Verdict.objects.get().outcome == "pending"
    assert Judgment.objects.get().reason == "cut off"


@pytest.mark.parametrize(("action", "done"), [("skip", "skipped"), ("flag", "reported")])
def test_skip_or_report_of_a_device_that_did_not_see_the_answer_leaves_it(rater, held, action, done):
    answer = make_row(held)
    stale = make_row(held, {}, action=action, reason="cut off")
    (first, refused) = record_judgments(rater, [answer, stale])
    assert (first.status, refused.status, refused.stands) == ("stored", "rejected", True)
    assert (
        refused.reason
        == f"You have answered this item on another device since, so it was not {done}. Your answer stands."
    )
    # Nor by one that saw an earlier row of the chain.
    undo = make_row(held, {}, action="undo", supersedes=answer["id"])
    again = make_row(held, {"alignment": "fail"}, supersedes=undo["id"])
    older = make_row(held, {}, action=action, supersedes=undo["id"])
    assert statuses(record_judgments(rater, [undo, again, older])) == ["stored", "stored", "rejected"]
    back = make_row(held, {}, action="undo", supersedes=again["id"])
    (undone, wrong) = record_judgments(rater, [back, make_row(held, {"alignment": "maybe"}, supersedes=back["id"])])
    assert (undone.status, wrong.status, wrong.stands) == ("stored", "rejected", False)
    last = make_row(held, {"alignment": "fail"}, supersedes=back["id"])
    record_judgments(rater, [last])
    held.refresh_from_db()
    held.item.refresh_from_db()
    assert (held.state, held.item.judged) == ("judged", 1)
    # Who names the answer means it.
    assert statuses(record_judgments(rater, [make_row(held, {}, action=action, supersedes=last["id"])])) == ["stored"]
    held.item.refresh_from_db()
    assert held.item.judged == 0


def test_foreign_assignment_is_unknown(held):
    stranger = make_rater()
    (foreign,) = record_judgments(stranger, [make_row(held)])
    (missing,) = record_judgments(stranger, [make_row(10**9)])
    assert foreign[1:] == missing[1:] == ("rejected", "There is no such assignment of yours.", False)
    assert not Judgment.objects.exists()


def test_id_of_somebody_elses_judgment_is_refused(rater, held):
    row = make_row(held)
    record_judgments(rater, [row])
    stranger = make_rater()
    theirs = lease_items(make_campaign(items=1, raters=[stranger]), stranger, 1)[0]
    (result,) = record_judgments(stranger, [{**row, "assignment": theirs.pk}])
    assert result.reason == "This id was used for another judgment."


def test_judgment_after_its_lease_or_its_campaign_is_kept(rater, held):
    close_campaign(held.item.campaign, by=make_curator())
    Assignment.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert statuses(record_judgments(rater, [make_row(held)])) == ["stored"]
    assert Judgment.objects.get().late


@pytest.mark.parametrize("end", ["closed", "not one of the raters"])
def test_what_was_judged_before_the_end_is_changed_no_more_and_what_was_in_hand_is_taken_in(rater, end):
    campaign, curator = make_campaign(items=3, raters=[rater]), make_curator()
    judged, skipped, in_hand = lease_items(campaign, rater, 3)
    rows = [make_row(judged), make_row(skipped, {}, action="skip")]
    record_judgments(rater, rows)
    before = dict(Verdict.objects.values_list("item", "outcome"))

    def change_both():
        return record_judgments(
            rater,
            [
                make_row(judged, {"alignment": "fail"}, supersedes=rows[0]["id"]),
                make_row(judged, {}, action="undo", supersedes=rows[0]["id"]),
                make_row(skipped),
                rows[0],
            ],
        )

    if end == "closed":
        close_campaign(campaign, by=curator)
    else:
        set_raters(campaign, [], by=curator)
    results = change_both()
    assert statuses(results) == ["rejected", "rejected", "rejected", "duplicate"]
    assert all(end in result.reason for result in results[:3])
    assert dict(Verdict.objects.values_list("item", "outcome")) == before
    # What the outbox kept of an item in hand, with its undo, in one request and in two.
    first = make_row(in_hand)
    undo = make_row(in_hand, {}, action="undo", supersedes=first["id"])
    assert statuses(record_judgments(rater, [first, undo])) == ["stored", "stored"]
    assert statuses(record_judgments(rater, [make_row(in_hand, supersedes=undo["id"])])) == ["stored"]
    assert list(problems()) == []
    if end == "closed":
        open_campaign(campaign, by=curator)
    else:
        set_raters(campaign, [rater], by=curator)
    assert statuses(change_both()) == ["stored", "rejected", "stored", "duplicate"]


def test_judgment_over_the_overlap_is_kept_and_marked_late():
    slow, fast = make_rater(), make_rater()
    campaign = make_campaign(items=1, raters=[slow, fast])
    lost = lease_items(campaign, slow, 1)[0]
    Assignment.objects.update(expires_at="2020-01-01T00:00:00Z")
    record_judgments(fast, [make_row(lease_items(campaign, fast, 1)[0])])
    record_judgments(slow, [make_row(lost, {"alignment": "fail"})])
    assert dict(Judgment.objects.values_list("rater", "late")) == {fast.pk: False, slow.pk: True}
    assert Verdict.objects.get().outcome == "split"
    assert campaign.items.get().judged == 2


def test_undo_of_a_skip_whose_place_was_taken_gives_no_second_lease():
    first, second = make_rater(), make_rater()
    campaign = make_campaign(items=1, raters=[first, second])
    skipped = lease_items(campaign, first, 1)[0]
    skip = make_row(skipped, {}, action="skip")
    record_judgments(first, [skip])
    assert len(lease_items(campaign, second, 1)) == 1
    record_judgments(first, [make_row(skipped, {}, action="undo", supersedes=skip["id"])])
    assert Assignment.objects.live().count() == 1


def test_more_than_ten_thousand_at_once_are_refused(rater):
    with pytest.raises(TooManyJudgments, match="At most 10,000"):
        record_judgments(rater, [{}] * 10_001)


BAD_ROWS = [
    (None, "is an object"),
    ([], "is an object"),
    (17, "is an object"),
    ({"id": "not-a-uuid"}, "The id must be a UUID"),
    ({"id": None}, "The id must be a UUID"),
    ({"id": 5}, "The id must be a UUID"),
    ({"action": []}, "The action must be one of"),
    ({"action": 0}, "The action must be one of"),
    ({"assignment": None}, "number that came with the lease"),
    ({"assignment": True}, "number that came with the lease"),
    ({"assignment": "1"}, "number that came with the lease"),
    ({"assignment": 10**30}, "number that came with the lease"),
    ({"assignment": -1}, "number that came with the lease"),
    ({"assignment": 1.5}, "number that came with the lease"),
    ({"action": "destroy"}, "The action must be one of"),
    ({"action": ["answer"]}, "The action must be one of"),
    ({"answers": None}, "must be an object of question names"),
    ({"answers": ["pass"]}, "must be an object of question names"),
    ({"answers": {}}, "No answer to alignment"),
    ({"answers": {"alignment": "perhaps"}}, "is no choice of the question alignment"),
    ({"answers": {"alignment": None}}, "must be a plain text value"),
    ({"answers": {"alignment": "pa\x00ss"}}, "must be a plain text value"),
    ({"answers": {"alignment": "\ud800"}}, "must be a plain text value"),
    ({"answers": {"align\x00ment": "pass"}}, "must be a plain text value"),
    ({"answers": {"alignment": "pass", "mood": "good"}}, "has no question “mood”"),
    ({"answers": {"alignment": "pass", "x" * 10_000: "good"}}, "has no question"),
    ({"shown_at": "yesterday"}, "The shown_at must be a time"),
    ({"decided_at": 1700000000}, "The decided_at must be a time"),
    ({"decided_at": "2026-13-45T00:00:00Z"}, "The decided_at must be a time"),
    ({"decided_at": "9999-12-31T23:59:59-14:00"}, "the clock of this device cannot be right"),
    ({"order": "left"}, "The order must be a list"),
    ({"order": [0, 1]}, "each of the 1 pictures once"),
    ({"order": [None]}, "list of places"),
    ({"order": [10**30]}, "each of the 1 pictures once"),
    ({"supersedes": "x"}, "The supersedes must be a UUID"),
    ({"supersedes": str(uuid.uuid4())}, "is not known"),
    ({"reason": 5}, "The reason must be text"),
]


@pytest.mark.parametrize(("fault", "reason"), BAD_ROWS)
def test_bad_row_is_refused_with_a_sentence(rater, held, fault, reason):
    row = make_row(held) | fault if isinstance(fault, dict) else fault
    good = make_row(held)
    bad, fine = record_judgments(rater, [row, good])
    assert (bad.status, fine.status) == ("rejected", "stored")
    assert reason in bad.reason
    assert bad.reason.endswith(".")
    json.dumps(bad).encode()


@pytest.mark.parametrize(
    "moment",
    [
        None,
        "2026-11-22T09:30:00Z",
        "2026-11-24T09:30:00+02:00",
        "2026-11-24T09:30:00",
        "2026-11-24 09:30:00.123Z",
        # Offsets that ISO 8601 allows and PostgreSQL does not.
        "2026-11-24T09:30:00+23:59",
        "2000-01-01T00:00:00+23:59:59.999999",
        "2100-12-31T23:59:59-16:00",
    ],
)
def test_times_of_wrong_clocks_are_taken_as_they_are(rater, held, moment):
    (result,) = record_judgments(rater, [make_row(held, shown_at=moment, decided_at=moment)])
    assert result.status == "stored"


def test_unstorable_characters_of_a_reason_are_replaced(rater, held):
    record_judgments(rater, [make_row(held, {}, action="flag", reason="bro\x00ken \ud800" + "x" * 1000)])
    assert Judgment.objects.get().reason.startswith("bro\ufffdken \ufffdxxx")
    assert len(Judgment.objects.get().reason) == 300


def test_a_batch_costs_as_many_queries_for_twenty_as_for_two(django_assert_num_queries):
    rater = make_rater()
    campaign = make_campaign(items=22, raters=[rater], overlap=2)
    leased = lease_items(campaign, rater, 22)
    for rows in (leased[:2], leased[2:]):
        with django_assert_num_queries(16):
            results = record_judgments(rater, [make_row(row) for row in rows])
        assert {result.status for result in results} == {"stored"}
