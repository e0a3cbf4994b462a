"""Why something failed: taken in with the judgment, checked, and summed up."""

import pytest

from curation import tallies
from curation.assignments import lease_items
from curation.campaign_forms import ReasonsForm
from curation.fails import marked_words, reason_tables
from curation.gold import mark_gold, set_gold_percent
from curation.judgments import record_judgments
from curation.models import Campaign, Judgment
from curation.rubrics import RUBRICS, RubricRefused, check_questions
from tests.curation.factories import make_batch, make_campaign, make_curator, make_rater, make_row

pytestmark = pytest.mark.django_db
FAIL = {"alignment": "fail"}


@pytest.fixture
def rater():
    return make_rater()


def hold(rater, kind="alignment", items=1, **fields):
    return lease_items(make_campaign(kind, items=items, raters=[rater], **fields), rater, items)


def reasons_of(rater, rows):
    return [result.reason for result in record_judgments(rater, rows)]


def test_details_are_kept_in_one_spelling_and_are_part_of_what_a_judgment_says(rater):
    (held,) = hold(rater)
    row = make_row(
        held,
        FAIL,
        details={"alignment": {"reasons": ["Wrong subject", "Wrong subject"], "words": [1, 0, 1], "point": None}},
    )
    same = {**row, "details": {"alignment": {"reasons": ["Wrong subject"], "words": [0, 1]}}}
    other = {**row, "details": {"alignment": {"reasons": ["Wrong subject"]}}}
    statuses = [result.status for result in record_judgments(rater, [row, same, other])]
    assert statuses == ["stored", "duplicate", "rejected"]
    assert Judgment.objects.get().details == {"alignment": {"reasons": ["Wrong subject"], "words": [0, 1]}}


def test_point_is_the_same_after_the_database_has_had_it(rater):
    (held,) = hold(rater, "style")
    answers = {"visual_quality": "fail", "prompt_alignment": "pass", "style_alignment": "pass"}
    row = make_row(held, answers, details={"visual_quality": {"point": [0.333333333, 1]}, "style_alignment": {}})
    assert [result.status for result in record_judgments(rater, [row])] == ["stored"]
    assert [result.status for result in record_judgments(rater, [row])] == ["duplicate"]
    assert Judgment.objects.get().details == {"visual_quality": {"point": [0.3333, 1.0]}}


BAD = [
    ("x", "The details must be an object of question names and what was wrong."),
    ({"alignment": []}, "The details of “alignment” must be an object with reasons, words or a point."),
    ({"alignment": {"why": 1}}, "The details of “alignment” cannot have “why”: only reasons, words and point."),
    ({"alignment": {"reasons": "Wrong subject"}}, "The reasons of “alignment” must be a list."),
    ({"alignment": {"reasons": [3]}}, "The reasons of “alignment” must be texts."),
    ({"alignment": {"reasons": ["Ugly\0"]}}, "“Ugly\N{REPLACEMENT CHARACTER}” is no reason of the question alignment."),
    ({"alignment": {"words": [-1]}}, "The words of “alignment” must be places in the prompt, counted from 0."),
    ({"alignment": {"words": [True]}}, "The words of “alignment” must be places in the prompt, counted from 0."),
    ({"alignment": {"words": [99]}}, "The prompt has 2 words; there is none at place 99."),
    ({"alignment": {"point": [0.5]}}, "The point of “alignment” must be two numbers from 0 to 1."),
    ({"alignment": {"point": [float("nan"), 0]}}, "The point of “alignment” must be two numbers from 0 to 1."),
    ({"alignment": {"point": [0.5, 0.5]}}, "No point is marked for the question alignment."),
    ({"colour": {"words": [0]}}, "This campaign has no question “colour”, so that has no details."),
]


def test_bad_details_are_refused_with_the_reason_and_cost_no_other_row(rater):
    held, other = hold(rater, items=2)
    rows = [make_row(held, FAIL, details=details) for details, _ in BAD]
    assert reasons_of(rater, [*rows, make_row(other, FAIL)]) == [*(reason for _, reason in BAD), ""]
    passing = make_row(held, {"alignment": "pass"}, details={"alignment": {"reasons": ["Wrong subject"]}})
    assert reasons_of(rater, [passing]) == ["The question alignment was not failed, so it has no details."]
    assert Judgment.objects.count() == 1


def test_campaign_may_need_a_reason_for_a_fail(rater):
    questions = [{**RUBRICS["alignment"][0], "reasons": ["Wrong subject", "Other"], "needs_reason": True}]
    (held,) = hold(rater, questions=questions)
    assert reasons_of(rater, [make_row(held, FAIL, details={"alignment": {"words": [0]}})]) == [
        "A fail of alignment needs a reason here: Wrong subject, Other."
    ]
    assert reasons_of(rater, [make_row(held, FAIL, details={"alignment": {"reasons": ["Other"]}})]) == [""]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reasons": [f"Reason {number}" for number in range(10)]}, "only 9 digits"),
        ({"reasons": ["Text", "text"]}, "are the same"),
        ({"reasons": ["x" * 41]}, "between 1 and 40 characters"),
        ({"reasons": [], "needs_reason": True}, "there are none to give"),
    ],
)
def test_reasons_that_cannot_be_given_are_refused(changes, sentence):
    with pytest.raises(RubricRefused, match=sentence):
        check_questions("alignment", [{**RUBRICS["alignment"][0], **changes}])


def test_reasons_are_lines_of_the_form(client):
    curator = make_curator()
    client.force_login(curator)
    batch = make_batch()
    page = client.get("/campaigns/new/").content.decode()
    assert "Wrong subject\nWrong emotion" in page
    form = {"kind": "style", "name": "Round", "batches": [batch.pk], "overlap": 1}
    lines = {
        "reasons_style_visual_quality": " Blurred \r\n\r\nCut   off",
        "reasons_style_prompt_alignment": "",
        "needs_reason": "on",
    }
    refused = client.post("/campaigns/new/", {**form, **lines, "reasons_style_style_alignment": "a\n" * 2})
    assert "Two reasons of the question “Is it in the house style?” are the same." in refused.content.decode()
    assert client.post("/campaigns/new/", {**form, **lines}).status_code == 302
    rows = Campaign.objects.get().questions
    assert list(rows.values_list("name", "reasons", "needs_reason")) == [
        ("visual_quality", ["Blurred", "Cut off"], True),
        ("prompt_alignment", [], False),
        ("style_alignment", ["Off style", "Bad edge", "Background"], True),
    ]


def test_reasons_form_alone_gives_the_usual_rubric():
    form = ReasonsForm({})
    assert form.is_valid()
    assert [spec["reasons"] for spec in form.rubric("alignment")] == [RUBRICS["alignment"][0]["reasons"]]


def test_reasons_and_words_are_summed_up_by_bucket(client, rater):
    batch = make_batch(["a happy cat", "a red dog", "a sad cat", "a dog"])
    campaign = make_campaign(batches=[batch], raters=[rater])
    held = lease_items(campaign, rater, 4)
    details = [
        {"alignment": {"reasons": ["Wrong subject", "Missing part"], "words": [2]}},
        {"alignment": {"reasons": ["Wrong subject"], "words": [2]}},
        {"alignment": {"words": [2]}},
        {},
    ]
    rows = [make_row(one, FAIL, details=part) for one, part in zip(held, details, strict=True)]
    undone = make_row(held[3], {}, action="undo", supersedes=rows[3]["id"])
    assert reasons_of(rater, [*rows, undone]) == [""] * 5
    (table,) = reason_tables(campaign, campaign.questions.all())
    assert (table.buckets, table.fails) == (["emotion", "scene"], [3, 2, 1])
    assert [(name, [share.k for share in shares]) for name, shares in table.rows[:2]] == [
        ("Wrong subject", [2, 1, 1]),
        ("Missing part", [1, 1, 0]),
    ]
    assert marked_words(campaign) == [("cat", 2)]
    assert tallies.differences(campaign) == []
    client.force_login(make_curator())
    page = client.get(campaign.get_absolute_url()).content.decode()
    assert "Why stickers failed" in page
    assert "cat × 2" in page
    sample = client.get(held[0].item.item_samples.get().sample.get_absolute_url()).content.decode()
    assert "(wrong subject, missing part, “cat” is wrong or missing)" in sample


def test_why_gold_failed_is_counted_nowhere(rater):
    campaign = make_campaign(batches=[make_batch(["a cat", "a dog"])], raters=[rater])
    gold, other = campaign.items.order_by("position")
    mark_gold(gold, {"alignment": "pass"}, by=campaign.created_by)
    set_gold_percent(campaign, 50, by=campaign.created_by)
    campaign.refresh_from_db()
    held = lease_items(campaign, rater, 4)
    assert {row.item_id for row in held} == {gold.pk, other.pk}
    details = {"alignment": {"reasons": ["Wrong subject"]}}
    assert reasons_of(rater, [make_row(row, FAIL, details=details) for row in held]) == ["", ""]
    (table,) = reason_tables(campaign, campaign.questions.all())
    assert (table.fails[0], table.rows[0][1][0].k) == (1, 1)
    assert tallies.differences(campaign) == []
