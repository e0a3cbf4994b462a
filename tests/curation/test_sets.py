"""Set against set: both from the same prompts and seeds, shown whole and blind, and counted by what they were."""

import json

import pytest
from django.urls import reverse

from curation.adjudications import AdjudicationRefused, adjudicate, order_for
from curation.assignments import lease_items
from curation.campaigns import CampaignRefused, close_campaign, create_set_campaign, is_blind_for
from curation.examples import Example
from curation.gold import known_choices, mark_gold
from curation.guidelines import GuidelinesRefused, revise_guidelines
from curation.judgments import record_judgments
from curation.models import Assignment, Item, Judgment, Probe, Verdict
from curation.probes import LEAST_BETWEEN, consistency_by_rater, set_probe_percent
from curation.questions import specs_of
from curation.sets import SIZES, are_whole, side_of
from curation.verdicts import preferences, preferred
from tests.curation.factories import make_curator, make_rater, make_row, make_set_campaign, make_sets

pytestmark = pytest.mark.django_db
ANSWERS = {"variety": "left"}


def say(campaign, rater, side):
    """The rater judges all that they are handed for one side, wherever it stands; returns the results."""
    rows = []
    for assignment in lease_items(campaign, rater, 50):
        value = side if side == "tie" else next(v for v in ("left", "right") if preferred(v, assignment.order) == side)
        rows.append(make_row(assignment, {"variety": value}))
    return record_judgments(rater, rows)


@pytest.mark.parametrize("size", SIZES)
def test_sides_are_halves_and_stay_whole(size):
    slots = 2 * size
    assert [side_of(slot, slots) for slot in range(slots)] == [0] * size + [1] * size
    left_first = list(range(slots))
    assert are_whole(left_first)
    assert are_whole(left_first[::-1])
    assert not are_whole([*left_first[1:], left_first[0]])
    assert preferred("left", left_first) == preferred("right", left_first[::-1]) == "baseline"
    assert preferred("right", left_first) == preferred("left", left_first[::-1]) == "candidate"


def test_each_rater_sees_whole_sets_and_each_side_left_as_often():
    rater = make_rater()
    campaign = make_set_campaign([f"prompt {n}" for n in range(6)], raters=[rater])
    leased = lease_items(campaign, rater, 10)
    assert len(leased) == 6
    firsts = []
    for assignment in leased:
        assert are_whole(assignment.order)
        assert sorted(assignment.order) == list(range(8))
        sides = [[sample.batch_id for sample in half] for half in (assignment.shown[:4], assignment.shown[4:])]
        assert [len(set(side)) for side in sides] == [1, 1]
        # The same seed stands at the same place of both.
        assert [s.seed for s in assignment.shown[:4]] == [s.seed for s in assignment.shown[4:]]
        firsts.append(side_of(assignment.order[0], 8))
    assert sorted(firsts) == [0, 0, 0, 1, 1, 1]


def test_judgments_count_for_the_side_wherever_it_stood():
    raters = [make_rater() for _ in range(3)]
    campaign = make_set_campaign(["a", "b", "c"], raters=raters, overlap=3)
    for rater, side in zip(raters, ("candidate", "candidate", "tie"), strict=True):
        assert {result.status for result in say(campaign, rater, side)} == {"stored"}
    verdicts = list(Verdict.objects.filter(item__campaign=campaign))
    assert [verdict.outcome for verdict in verdicts] == ["candidate"] * 3
    assert all(verdict.tallies == {"variety": {"candidate": 2, "tie": 1}} for verdict in verdicts)
    chosen = [row.choice for row in preferences(campaign)]
    assert (chosen.count("candidate"), chosen.count("tie")) == (6, 3)


def test_a_judgment_is_taken_once_and_only_of_whole_sets():
    rater = make_rater()
    campaign = make_set_campaign(raters=[rater])
    (assignment,) = lease_items(campaign, rater, 1)
    torn = make_row(assignment, ANSWERS, order=[0, 1, 2, 4, 3, 5, 6, 7])
    bad = make_row(assignment, {"variety": "both_bad"})
    row = make_row(assignment, ANSWERS, order=[4, 5, 6, 7, 0, 1, 2, 3])
    results = record_judgments(rater, [torn, bad, row, row])
    assert [result.status for result in results] == ["rejected", "rejected", "stored", "duplicate"]
    assert results[0].reason == "Each set stays whole: one on the left, and the other on the right."
    judgment = Judgment.objects.get()
    # The client turned the sides round, and says so: left is what it showed there.
    assert preferred("left", judgment.order) == preferred("right", assignment.order)
    assert Verdict.objects.get().outcome == preferred("left", judgment.order)


def test_undo_gives_the_sets_back_as_they_stood():
    rater = make_rater()
    campaign = make_set_campaign(raters=[rater])
    (assignment,) = lease_items(campaign, rater, 1)
    row = make_row(assignment, ANSWERS)
    undo = make_row(assignment, {}, action="undo", supersedes=row["id"])
    assert [result.status for result in record_judgments(rater, [row, undo])] == ["stored", "stored"]
    (again,) = lease_items(campaign, rater, 1)
    assert (again.pk, again.order) == (assignment.pk, assignment.order)


def test_the_lease_shows_no_side_and_no_version(client):
    rater = make_rater()
    campaign = make_set_campaign(raters=[rater])
    client.force_login(rater)
    answer = client.post(reverse("api-1:lease", args=[campaign.slug]), {"count": 5}, "application/json").json()
    (item,) = answer["items"]
    assert [image["slot"] for image in item["images"]] == list(range(8))
    assert item["prompt"] == "a happy cat"
    assert [set(image) for image in item["images"]] == [{"url", "width", "height", "slot"}] * 8
    said = json.dumps(answer).lower()
    assert not any(word in said for word in ("baseline", "candidate", "seed", "batch", "score"))


def test_sets_of_many_prompts_say_what_each_picture_is_of(client):
    sets = make_sets(["a cat", "a dog", "a cow", "a hen"], size=4)
    first = [baseline[0] for baseline, _ in sets], [candidate[0] for _, candidate in sets]
    rater = make_rater()
    campaign = create_set_campaign("Many", [first], by=make_curator(), raters=[rater])
    client.force_login(rater)
    answer = client.post(reverse("api-1:lease", args=[campaign.slug]), {"count": 5}, "application/json").json()
    (item,) = answer["items"]
    assert item["prompt"] == "4 prompts, a sticker of each"
    assert [image["prompt"] for image in item["images"]] == ["a cat", "a dog", "a cow", "a hen"] * 2
    # The prompts are of two buckets, so that the item is of none.
    assert Item.objects.get(campaign=campaign).bucket == ""


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda a, b: [(a[:3], b[:3])], "Both sets have 4, 9 or 16 images; these have 3 and 3."),
        (lambda a, b: [(a, b[:3])], "Both sets have 4, 9 or 16 images; these have 4 and 3."),
        (lambda a, b: [(a, b[::-1])], "Both sets must be drawn from the same prompts and seeds."),
        (lambda a, b: [], "There is nothing to compare: no two sets of samples have been drawn yet."),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(spoil, sentence):
    (pair,) = make_sets()
    with pytest.raises(CampaignRefused) as refusal:
        create_set_campaign("Sets", spoil(*pair), by=make_curator())
    assert refusal.value.args[0] == sentence


def test_both_bad_is_there_where_the_rubric_asks():
    rater = make_rater()
    (question,) = specs_of(make_set_campaign())
    assert [choice["value"] for choice in question["choices"]] == ["left", "right", "tie"]
    bad = {"value": "both_bad", "label": "Both dull", "key": "ArrowDown", "accepts": False}
    asked = {"name": "variety", "text": "?", "choices": [*question["choices"], bad]}
    campaign = make_set_campaign(raters=[rater], questions=[asked, {**asked, "name": "poses"}])
    (assignment,) = lease_items(campaign, rater, 1)
    (result,) = record_judgments(rater, [make_row(assignment, {"variety": "both_bad", "poses": "left"})])
    assert result.status == "stored"
    assert Verdict.objects.get().outcome == "tie"


def test_gold_is_by_side_and_curators_who_judge_are_blind():
    rater, curator = make_rater(), make_curator()
    campaign = make_set_campaign(["a", "b"], raters=[rater])
    assert [value for value, _ in known_choices(campaign, campaign.questions.get())] == ["baseline", "candidate", "tie"]
    mark_gold(campaign.items.first(), {"variety": "candidate"}, by=curator)
    assert is_blind_for(campaign, rater)
    assert not is_blind_for(campaign, curator)


def test_a_curator_decides_by_the_sides_they_see():
    raters, curator = [make_rater(), make_rater()], make_curator()
    campaign = make_set_campaign(raters=raters, overlap=2)
    for rater, side in zip(raters, ("baseline", "candidate"), strict=True):
        say(campaign, rater, side)
    item = campaign.items.get()
    assert Verdict.objects.get().contested
    order = order_for(item, curator)
    assert are_whole(order)
    with pytest.raises(AdjudicationRefused, match="stays whole"):
        adjudicate(item, by=curator, answers=ANSWERS, order=[*order[1:], order[0]])
    adjudicate(item, by=curator, answers=ANSWERS, order=order)
    assert Verdict.objects.get().outcome == preferred("left", order)


def test_a_probe_shows_the_sets_the_other_way_round():
    rater = make_rater()
    campaign = create_set_campaign("Sets", make_sets() * (LEAST_BETWEEN + 25), by=make_curator(), raters=[rater])
    set_probe_percent(campaign, 10, by=campaign.created_by)
    while leased := lease_items(campaign, rater, 20):
        record_judgments(rater, [make_row(assignment, ANSWERS) for assignment in leased])
    probes = list(Probe.objects.all())
    assert probes
    for probe in probes:
        first, again = (Assignment.objects.get(item=item, rater=rater).order for item in (probe.of, probe.item))
        assert again == first[::-1]
    # Whoever always presses left says another thing the second time, and leans left.
    seen = consistency_by_rater(campaign)[rater.pk]
    assert (seen.same.k, seen.left.k) == (0, seen.left.n)


@pytest.mark.parametrize("name", ["campaign", "campaign_gold", "campaign_adjudicate", "campaign_flagged"])
def test_pages_of_curators_show_sets(client, name):
    raters = [make_rater(), make_rater()]
    campaign = make_set_campaign(raters=raters, overlap=2)
    for rater, side in zip(raters, ("baseline", "candidate"), strict=True):
        say(campaign, rater, side)
    curator = make_curator()
    client.force_login(curator)
    answer = client.get(reverse(name, args=[campaign.slug]))
    assert answer.status_code == 200
    page = answer.content.decode()
    if name in ("campaign_gold", "campaign_adjudicate"):
        assert page.count('class="set" data-count="4"') == 2
    close_campaign(campaign, by=curator)
    assert client.get(reverse("gold_item", args=[campaign.slug, campaign.items.get().pk])).status_code == 200
    sample = campaign.items.get().item_samples.get(slot=5).sample
    assert "candidate" in client.get(sample.get_absolute_url()).content.decode()


def test_guidelines_of_sets_have_no_examples():
    curator = make_curator()
    campaign = make_set_campaign()
    example = Example((make_sets()[0][0][0].pk,), {"variety": "left"}, "More poses.")
    with pytest.raises(GuidelinesRefused, match="an example shows one or two"):
        revise_guidelines(campaign, "Poses.", change="Said.", based_on=1, by=curator, examples=[example])
    assert revise_guidelines(campaign, "More poses, more varied.", change="Said.", based_on=1, by=curator).number == 2
