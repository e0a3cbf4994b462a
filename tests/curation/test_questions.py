"""Revisions of how a campaign's questions read: what may change, what judgments keep of it, and what raters are told."""

import json
import re
import time
from importlib import import_module
from pathlib import Path
from string import ascii_uppercase

import pytest
from django.db import connection, transaction
from django.db.utils import IntegrityError

from accounts.models import Role
from curation.assignments import lease_items
from curation.campaigns import close_campaign, create_compare_campaign, create_pick_campaign, open_campaign
from curation.datasets import freeze
from curation.fails import reason_tables
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.manifests import read_manifest
from curation.models import Assignment, Campaign, CampaignRater, Judgment, QuestionRevision, TallyKind
from curation.questions import LETTERS, OTHER_QUESTIONS, QuestionsRefused, in_words, revise_questions, specs_of
from curation.statistics import answers_by_revision
from curation.tallies import differences
from tests.accounts.factories import make_person
from tests.curation.factories import make_batch, make_campaign, make_curator, make_dataset, make_rater, make_row
from tests.curation.test_concurrency import together
from tests.curation.test_guidelines_shown import lease, post, signed_in
from tests.curation.test_leases import make_pairs

pytestmark = pytest.mark.django_db
FAIL = {"alignment": "fail"}


@pytest.fixture
def rater():
    return make_rater()


@pytest.fixture
def curator():
    return make_curator()


@pytest.fixture
def campaign(rater):
    return make_campaign(items=4, raters=[rater])


def address(campaign):
    return f"/campaigns/{campaign.slug}/questions/"


def reword(campaign, change="Shorter", **fields):
    """A revision in which the first question has these fields."""
    specs = specs_of(campaign)
    specs[0] |= {"text": f"{specs[0]['text']} Really?"} | fields
    newest = campaign.question_revisions.first()
    return revise_questions(campaign, specs, change=change, based_on=newest.number, by=campaign.created_by)


def form_of(campaign, **fields):
    client = signed_in(make_curator())
    form = client.get(address(campaign)).context["form"]
    sent = {name: form[name].value() for name in form.fields if form[name].value() not in (None, False)}
    return client, sent | {"change": "Other words", "based_on": 1} | fields


def shown():
    rows = Judgment.objects.order_by("received_at")
    return list(rows.values_list("answers__alignment", "question_revision__number"))


def test_a_change_is_a_revision_beside_the_earlier_ones_and_raters_have_it_with_the_next_lease(campaign, rater):
    client, form = form_of(campaign, text_alignment="Is it what the prompt says?", help_alignment="All of it.")
    form |= {
        "key_alignment:pass": "k",
        "label_alignment:fail": "No",
        "reasons_alignment": "Wrong  emotion\r\n\r\nLetters",
    }
    assert client.post(address(campaign), form).status_code == 302
    asked = lease(signed_in(rater), campaign)
    question = asked["questions"][0]
    assert (asked["question_revision"], question["text"], question["help"]) == (
        2,
        "Is it what the prompt says?",
        "All of it.",
    )
    assert question["reasons"] == ["Wrong emotion", "Letters"]
    assert [(each["label"], each["key"]) for each in question["choices"]] == [("Pass", "K"), ("No", "J")]
    assert signed_in(rater).get(f"/rate/{campaign.slug}/").context["config"]["questions"] == asked["questions"]
    first, second = campaign.question_revisions.order_by("number")
    assert (first.change, first.questions[0]["text"]) == (
        "As the campaign was set up.",
        "Does the sticker show what the prompt says?",
    )
    assert (second.change, second.questions) == ("Other words", specs_of(campaign))
    page = client.get(address(campaign)).content.decode()
    assert '<ins><span class="visually-hidden">Added: </span>' in page
    assert "Questions changed to revision 2" in client.get(campaign.get_absolute_url()).content.decode()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "so there is nothing to save"),
        ({"text_alignment": "x", "change": " "}, "Say in a sentence what you changed"),
        ({"text_alignment": "x", "based_on": ""}, "This form is incomplete"),
        ({"key_alignment:pass": "J"}, "share a key"),
        ({"key_alignment:pass": "7"}, "The digit 7 gives a reason"),
        ({"key_alignment:pass": "ab"}, "“ab” is no key"),
        ({"reasons_alignment": "\n".join(map(str, range(10)))}, "There are 10 reasons"),
        ({"reasons_alignment": "", "needs_alignment": "on"}, "there are none to give"),
        ({"text_alignment": ""}, "This field is required"),
        ({"label_alignment:fail": " pASS "}, "Two choices of “Does the sticker show what the prompt says?” are called"),
    ],
)
def test_nonsense_is_refused_with_a_sentence_and_nothing_changes(campaign, fields, sentence):
    before = specs_of(campaign)
    client, form = form_of(campaign, **fields)
    assert sentence in client.post(address(campaign), form).content.decode()
    assert (campaign.question_revisions.count(), specs_of(campaign)) == (1, before)


def test_what_somebody_else_saved_meanwhile_is_not_undone_unseen(campaign):
    client, form = form_of(campaign, text_alignment="Mine")
    reword(campaign)
    page = client.post(address(campaign), form).content.decode()
    assert ("saved revision 2 meanwhile" in page, 'value="Mine"' in page, 'name="based_on" value="2"' in page) == (
        True,
    ) * 3
    assert client.post(address(campaign), form | {"based_on": 2}).status_code == 302


def test_other_questions_and_choices_are_refused_once_a_campaign_was_opened(campaign, curator):
    another = {"name": "mood", "text": "Is it happy?", "choices": specs_of(campaign)[0]["choices"]}
    third = {"value": "perhaps", "label": "Perhaps", "key": "P", "accepts": False}
    for change in (
        [*specs_of(campaign), another],
        [another],
        [specs_of(campaign)[0] | {"choices": [*another["choices"], third]}],
        [specs_of(campaign)[0] | {"choices": [each | {"accepts": True} for each in another["choices"]]}],
    ):
        with pytest.raises(QuestionsRefused) as refusal:
            revise_questions(campaign, change, change="x", based_on=1, by=curator)
        assert refusal.value.args[0] == OTHER_QUESTIONS
    assert "begin a new one" in OTHER_QUESTIONS
    draft = make_campaign(open_now=False)
    revise_questions(
        draft,
        [
            *specs_of(draft),
            another
            | {
                "choices": [
                    {"value": "yes", "label": "Yes", "key": "Y", "accepts": True},
                    {"value": "no", "label": "No", "key": "N", "accepts": False},
                ]
            },
        ],
        change="Mood too",
        based_on=1,
        by=curator,
    )
    assert [question.name for question in draft.questions.all()] == ["alignment", "mood"]


def test_a_closed_campaign_keeps_its_questions(campaign, curator):
    close_campaign(campaign, by=curator)
    with pytest.raises(QuestionsRefused, match="is closed"):
        reword(campaign)
    assert '<form class="form panel"' not in signed_in(curator).get(address(campaign)).content.decode()


def test_one_question_has_to_be_answered(curator):
    campaign = make_campaign("style", open_now=False)
    specs = [spec | {"required": False} for spec in specs_of(campaign)]
    with pytest.raises(QuestionsRefused, match="At least one question"):
        revise_questions(campaign, specs, change="x", based_on=1, by=curator)


def test_each_judgment_is_checked_by_the_questions_that_it_names_and_keeps_them(campaign, rater):
    held = lease_items(campaign, rater, 4)
    reword(campaign, reasons=["Letters"], needs_reason=True)
    details = [{"alignment": {"reasons": [reason]}} for reason in ("Wrong subject", "Letters")]
    rows = [
        make_row(held[0], FAIL, details=details[0], question_revision=1),  # Judged offline, before the change.
        make_row(held[1], FAIL, details=details[0], question_revision=2),
        make_row(held[1], FAIL, question_revision=2),
        make_row(held[1], FAIL, details=details[1], question_revision=2),
        make_row(held[2], FAIL),  # A client that says nothing has what was newest when its item was leased.
        make_row(held[3], question_revision=3),
        make_row(held[3], question_revision="1"),
    ]
    assert [result.reason for result in record_judgments(rater, rows)] == [
        "",
        "“Wrong subject” is no reason of the question alignment.",
        "A fail of alignment needs a reason here: Letters.",
        "",
        "",
        "The questions of this campaign have no revision 3.",
        "The question_revision must be the number that came with the lease.",
    ]
    assert shown() == [("fail", 1), ("fail", 2), ("fail", 1)]
    table = reason_tables(campaign, campaign.questions.all())[0]
    assert [(reason, shares[0].k) for reason, shares in table.rows] == [("Letters", 1), ("Wrong subject", 1)]


def test_what_may_be_left_out_is_decided_before_a_campaign_opens(rater, curator):
    campaign = make_campaign("style", items=1, raters=[rater], open_now=False)
    client, form = form_of(campaign)
    del form["required_style_alignment"]
    assert client.post(address(campaign), form).status_code == 302
    open_campaign(campaign, by=curator)
    answers = {"visual_quality": "pass", "prompt_alignment": "pass"}
    results = record_judgments(rater, [make_row(lease_items(campaign, rater, 1)[0], answers)])
    assert ([result.status for result in results], list(problems())) == (["stored"], [])


def test_leases_name_the_newest_and_those_of_before_the_first(campaign, rater):
    before = lease_items(campaign, rater, 1)[0]
    reword(campaign)
    held, after = lease_items(campaign, rater, 2)
    assert (held.pk, held.question_revision.number, after.question_revision.number) == (before.pk, 1, 2)
    Assignment.objects.filter(pk=held.pk).update(question_revision=None)
    record_judgments(rater, [make_row(held), make_row(after)])
    assert shown() == [("pass", 1), ("pass", 2)]


def test_each_change_is_told_once_on_whatever_device_and_not_to_who_begins(campaign, rater):
    client = signed_in(rater)
    read = f"/api/campaigns/{campaign.slug}/guidelines-read"
    reword(campaign, "Before they began")
    assert lease(client, campaign)["question_news"] == []
    reword(campaign, "Letters are a reason")
    told = [(news["revision"], news["change"]) for news in lease(client, campaign)["question_news"]]
    assert told == [(3, "Letters are a reason")]
    config = signed_in(rater).get(f"/rate/{campaign.slug}/").context["config"]
    assert ([news["revision"] for news in config["question_news"]], config["question_revision"]) == ([3], 3)
    assert post(client, read, {"question_revision": 3}).status_code == 204
    assert lease(client, campaign)["question_news"] == []
    assert [post(client, read, wrong).status_code for wrong in ({"question_revision": 9}, {})] == [422, 422]
    assert CampaignRater.objects.get(rater=rater).questions_read == 3


def test_who_begins_on_a_screen_of_before_a_change_is_told(campaign, rater):
    reword(campaign, "Letters are a reason")
    assert [news["revision"] for news in lease(signed_in(rater), campaign, question_revision=1)["question_news"]] == [2]


def test_a_lease_costs_no_query_more_with_questions_that_changed(campaign, rater, django_assert_num_queries):
    client = signed_in(rater)
    lease(client, campaign)
    reword(campaign)
    post(client, f"/api/campaigns/{campaign.slug}/guidelines-read", {"question_revision": 2})
    with django_assert_num_queries(10):
        lease(client, campaign, question_revision=2, guideline_revision=1)


def test_the_campaign_and_frozen_versions_name_the_revisions(campaign, rater, curator):
    held = lease_items(campaign, rater, 4)
    reword(campaign)
    rows = [make_row(row, question_revision=number) for row, number in zip(held, (1, 2, 2, 1), strict=True)]
    record_judgments(rater, rows)
    assert answers_by_revision(campaign, TallyKind.WORDING) == [(2, 2), (1, 2)]
    assert differences(campaign) == []
    client = signed_in(curator)
    assert "Judgments under each revision of them" in client.get(campaign.get_absolute_url()).content.decode()
    version = freeze(make_dataset(campaign), by=curator)
    manifest = json.loads(read_manifest(version.content_hash))
    assert (manifest["questions"], "guidelines" in manifest) == ({campaign.slug: [1, 2]}, False)
    assert list(problems()) == []
    assert address(campaign) in client.get(version.get_absolute_url()).content.decode()
    sample = held[1].item.item_samples.get().sample
    assert "questions: revision 2" in client.get(sample.get_absolute_url()).content.decode()


@pytest.mark.parametrize("kind", ["compare", "pick"])
def test_other_kinds_change_their_words(rater, curator, kind):
    if kind == "compare":
        campaign = create_compare_campaign("Pairs", make_pairs(1), by=curator, raters=[rater])
    else:
        batch = make_batch(["a cat"], each=3)
        campaign = create_pick_campaign("Best", by=curator, batches=[batch], raters=[rater], open_now=True)
    name = campaign.questions.get().name
    client, form = form_of(campaign, **{f"text_{name}": "Which one?"})
    assert client.post(address(campaign), form).status_code == 302
    before, after = campaign.question_revisions.order_by("number")
    assert after.questions == [before.questions[0] | {"text": "Which one?"}]


def test_only_curators_change_and_only_the_team_reads(campaign):
    seen = {}
    for role in (Role.RATER, Role.OPERATOR, Role.AUDITOR, Role.CURATOR):
        client = signed_in(make_person(role))
        seen[role] = (client.get(address(campaign)).status_code, client.post(address(campaign), {}).status_code)
    assert seen == {
        Role.RATER: (403, 403),
        Role.OPERATOR: (200, 403),
        Role.AUDITOR: (200, 403),
        Role.CURATOR: (200, 200),
    }


def test_text_in_a_diff_is_never_markup(campaign, curator):
    reword(campaign, "<b>bold</b>", help="<script>alert(1)</script>")
    page = signed_in(curator).get(address(campaign)).content.decode()
    assert ("<script>alert" in page, "<b>bold" in page, "&lt;script&gt;alert(1)" in page) == (False, False, True)


def test_questions_in_words_say_all_that_may_change(campaign):
    specs = specs_of(campaign)
    changed = [{"text": "x"}, {"help": "x"}, {"required": False}, {"reasons": ["x"]}, {"needs_reason": True}]
    changed.append({"choices": [each | {"key": "X"} for each in specs[0]["choices"]]})
    changed.append({"choices": [each | {"label": "X"} for each in specs[0]["choices"]]})
    words = {in_words([specs[0] | change]) for change in changed}
    assert len(words | {in_words(specs)}) == len(changed) + 1


@pytest.mark.parametrize(
    "change", ["UPDATE curation_questionrevision SET change = ''", "DELETE FROM curation_questionrevision"]
)
def test_the_database_refuses_to_rewrite_a_revision(campaign, change):
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change)
    assert campaign.question_revisions.get().number == 1


def test_the_database_keeps_numbers_unique_and_from_one(campaign):
    row = {"campaign": campaign, "questions": [], "change": "x", "by": campaign.created_by}
    for number, name in ((1, "question_revision_once"), (0, "question_revision_from_one")):
        with pytest.raises(IntegrityError, match=name), transaction.atomic():
            QuestionRevision.objects.create(number=number, **row)


def test_what_campaigns_asked_before_there_were_revisions_is_their_first(rater):
    curator = make_curator()
    old = Campaign.objects.create(slug="old", name="Old", kind="alignment", created_by=curator)
    old.questions.create(position=0, name="alignment", text="Does it?", choices=[], reasons=["x"])
    CampaignRater.objects.create(campaign=old, rater=rater, guidelines_read=1)
    with connection.cursor() as cursor:
        cursor.execute(import_module("curation.migrations.0029_question_revisions").FILL)
    assert old.question_revisions.get().questions == specs_of(old)
    assert CampaignRater.objects.get(campaign=old).questions_read == 1


@pytest.mark.django_db(transaction=True)
def test_revising_while_others_lease_and_submit_loses_nothing_and_each_row_fits_its_revision():
    raters = [make_rater() for _ in range(4)]
    campaign = make_campaign(items=24, raters=raters, overlap=2)

    def work(person):
        if person is None:
            return [reword(campaign, reasons=[f"Reason {number}"], needs_reason=True).number for number in (2, 3)]
        sent, until = 0, time.monotonic() + 60
        client = signed_in(person)
        while time.monotonic() < until:
            asked = lease(client, campaign, 4)
            if not asked["items"]:
                break
            # What a screen does: answers and reasons by the questions of its lease, which it names.
            reasons = {"alignment": {"reasons": asked["questions"][0]["reasons"][:1]}}
            rows = [
                make_row(row["assignment"], FAIL, details=reasons, question_revision=asked["question_revision"])
                for row in asked["items"]
            ]
            results = record_judgments(person, rows)
            assert {result.status for result in results} == {"stored"}
            sent += len(rows)
        return sent

    done = together(work, [*raters, None])
    assert Judgment.objects.count() == sum(done[:4])
    offered = {row.number: row.questions[0]["reasons"] for row in campaign.question_revisions.all()}
    assert sorted(offered) == [1, 2, 3]
    for number, details in Judgment.objects.values_list("question_revision__number", "details"):
        assert details["alignment"]["reasons"][0] in offered[number]
    assert differences(campaign) == []


def other(campaign, **fields):
    return {"do": "add", "other-based_on": campaign.question_revisions.first().number} | {
        f"other-{name}": value for name, value in fields.items()
    }


def test_a_draft_is_asked_other_questions_in_the_browser(rater, curator):
    campaign = make_campaign(items=2, raters=[rater], open_now=False)
    client = signed_in(curator)
    sent = other(campaign, text="Would you  send it?", accepting="Yes\r\nPerhaps", others="No")
    assert client.post(address(campaign), sent).status_code == 302
    asked = specs_of(campaign)[1]
    assert (asked["name"], asked["text"], asked["required"]) == ("would_you_send_it", "Would you send it?", True)
    assert [(each["value"], each["label"], each["key"], each["accepts"]) for each in asked["choices"]] == [
        ("yes", "Yes", "D", True),
        ("perhaps", "Perhaps", "K", True),
        ("no", "No", "L", False),
    ]
    content = client.get(address(campaign)).content.decode()
    assert "Asks too: Would you send it?" in content
    assert content.count("Leave this question out") == 2

    left = {"do": "leave out alignment", "other-based_on": 2}
    assert client.post(address(campaign), left).status_code == 302
    assert [spec["name"] for spec in specs_of(campaign)] == ["would_you_send_it"]
    open_campaign(campaign, by=curator)
    (assignment, *_) = lease_items(campaign, rater, 2)
    (result,) = record_judgments(rater, [make_row(assignment, {"would_you_send_it": "no"})])
    assert result.status == "stored"
    assert "Ask something else too" not in client.get(address(campaign)).content.decode()


def test_names_that_run_into_each_other_are_fields_of_their_own(curator):
    """“Is it” and “Good yes” have the same words in the same order as “Is it good” and “Yes”."""
    campaign = make_campaign(open_now=False)
    client = signed_in(curator)
    for text, accepts, fails in (("Is it", "Good yes", "Good no"), ("Is it good", "Yes", "No")):
        sent = other(campaign, text=text, accepting=accepts, others=fails)
        assert client.post(address(campaign), sent).status_code == 302
    before = specs_of(campaign)
    client, form = form_of(campaign, text_is_it="Is it so?", based_on=3)
    assert client.post(address(campaign), form).status_code == 302
    assert specs_of(campaign) == [before[0], before[1] | {"text": "Is it so?"}, before[2]]


def test_keys_of_commands_are_given_to_choices_last():
    source = Path("static/js/rate/keymap.js").read_text()
    commands = {"P", *(key.upper() for each in re.findall(r"keys: (\[.+?\])", source) for key in json.loads(each))}
    free = set(ascii_uppercase) - commands
    assert len(free) > 10
    assert set(LETTERS[: len(free)]) == free
    assert sorted(LETTERS) == list(ascii_uppercase)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": " ", "accepting": "Yes", "others": "No"}, "This field is required"),
        ({"text": "Sure?", "accepting": "Yes", "others": ""}, "at least two distinct choices"),
        ({"text": "Sure?", "accepting": "", "others": "No\nNever"}, "nothing could ever pass"),
        ({"text": "Sure?", "accepting": "Y" * 41, "others": "No"}, "between 1 and 40 characters"),
        ({"text": "Sure?", "accepting": "Yes", "others": "No\nyes"}, "are called “yes”"),
        ({"text": "Sure?", "accepting": "Yes", "others": "No", "based_on": 7}, "saved revision 1 meanwhile"),
        ({"text": "Sure?", "accepting": "Yes", "others": "No", "based_on": "x"}, "This form is incomplete"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused_with_what_was_typed(rater, curator, fields, said):
    campaign = make_campaign(items=1, raters=[rater], open_now=False)
    content = signed_in(curator).post(address(campaign), other(campaign, **fields)).content.decode()
    assert said in content
    assert fields["text"].strip() in content
    assert len(specs_of(campaign)) == 1


@pytest.mark.parametrize("name", ["alignment", "nothing", "", "x\0"])
def test_the_last_question_and_one_that_is_not_there_stay(rater, curator, name):
    campaign = make_campaign(items=1, raters=[rater], open_now=False)
    content = signed_in(curator).post(address(campaign), {"do": f"leave out {name}", "other-based_on": 1}).content
    assert (
        "asks at least one question" if name == "alignment" else "left this question out meanwhile"
    ).encode() in content
    assert len(specs_of(campaign)) == 1


def test_an_open_campaign_and_a_comparison_that_was_opened_are_asked_nothing_else(campaign, curator):
    client = signed_in(curator)
    sent = other(campaign, text="Sure?", accepting="Yes", others="No")
    assert OTHER_QUESTIONS.encode() in client.post(address(campaign), sent).content
    left = {"do": "leave out alignment", "other-based_on": 1}
    assert OTHER_QUESTIONS.encode() in client.post(address(campaign), left).content
    comparison = create_compare_campaign("Two", make_pairs(1), by=curator, open_now=False)
    assert client.post(address(comparison), other(comparison, text="Which is funnier?")).status_code == 302
    first, second = specs_of(comparison)
    assert (second["name"], second["choices"]) == ("which_is_funnier", first["choices"])
