"""Evaluations of sets: what is drawn for them, which images stand together, and what their votes add up to."""

import uuid

import pytest
from django.urls import reverse

from accounts.models import Role
from curation.assignments import lease_items
from curation.judgments import record_judgments
from curation.models import Campaign, Item
from curation.verdicts import preferred
from generation.models import GenerationBatch
from jobs import queue
from jobs.models import JobState
from jobs.testing import run_due_jobs
from tests.accounts.factories import make_person
from tests.generation.factories import finish_job, make_prompt_set, make_samples
from tests.training.factories import make_equal_samples, make_evaluation, make_parent
from training import evaluations
from training.evaluations import EvaluationRefused
from training.models import Evaluation, Shown
from training.verdicts import EvaluationVerdict

pytestmark = pytest.mark.django_db
TEN = "\n".join(f"{'happy' if n < 5 else 'sad'}: prompt {n}" for n in range(10))


def judge(campaign: Campaign, rater, sides) -> None:
    """The rater says baseline, candidate or tie of the items, in their order."""
    rows = []
    for assignment, side in zip(lease_items(campaign, rater, 50), sides, strict=True):
        value = side if side == "tie" else next(v for v in ("left", "right") if preferred(v, assignment.order) == side)
        rows.append({"id": str(uuid.uuid4()), "assignment": assignment.pk, "answers": {"variety": value}})
    assert {result.status for result in record_judgments(rater, rows)} == {"stored"}


def shown_in(item: Item) -> list[list[tuple[int, int]]]:
    """(prompt's position, index) of both sets."""
    return [[(sample.prompt.position, sample.index) for sample in side] for side in item.sides]


def test_sets_of_one_prompt_take_its_seeds_in_turn():
    evaluation = make_evaluation([make_person("rater")], shown=Shown.ONE_PROMPT, set_size=4, sets=2)
    assert evaluation.baseline_batch.images_per_prompt == evaluation.candidate_batch.images_per_prompt == 8
    campaign = evaluation.campaign
    assert (campaign.kind, campaign.state, campaign.many_prompts) == ("sets", "open", False)
    items = list(campaign.items.prefetch_related("item_samples__sample__prompt"))
    assert len(items) == 8
    sides = [[(position, index) for index in range(n, n + 4)] for n in (0, 4) for position in range(4)]
    assert [shown_in(item) for item in items] == [[side, side] for side in sides]
    batches = [{sample.batch_id for sample in side} for item in items for side in item.sides]
    assert batches == [{evaluation.baseline_batch_id}, {evaluation.candidate_batch_id}] * 8
    for word in ("v1", "v2", "baseline", "candidate"):
        assert word not in f"{campaign.name} {campaign.slug} {campaign.guidelines}".lower()


def test_sets_of_many_prompts_do_not_overlap_and_mix_neighbours():
    prompts = make_prompt_set(texts=TEN)
    evaluation = make_evaluation(
        [make_person("rater")], prompt_set=prompts, shown=Shown.MANY_PROMPTS, set_size=4, sets=2
    )
    assert evaluation.baseline_batch.images_per_prompt == 2
    assert evaluation.campaign.many_prompts
    items = list(evaluation.campaign.items.prefetch_related("item_samples__sample__prompt"))
    groups = [[0, 2, 4, 6], [1, 3, 5, 7]]  # Two prompts of ten fill no third group.
    expected = [[(position, index) for position in group] for index in (0, 1) for group in groups]
    assert [shown_in(item) for item in items] == [[side, side] for side in expected]
    # Both sets of a group count as one cluster.
    assert [item.prompt.position for item in items] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"set_size": 5}, "set_size", "A set has 4, 9 or 16 images."),
        ({"sets": 0}, "sets", "Between 1 and 16 sets can be judged."),
        ({"sets": 17}, "sets", "Between 1 and 16 sets can be judged."),
        ({"shown": Shown.MANY_PROMPTS}, "prompt_set", "A set of 9 prompts needs 9 prompts; "),
    ],
)
def test_sets_that_cannot_be_filled_are_refused_before_anything_is_drawn(values, field, sentence):
    with pytest.raises(EvaluationRefused) as refusal:
        make_evaluation(**{"shown": Shown.ONE_PROMPT, **values})
    assert refusal.value.field == field
    assert refusal.value.sentence.startswith(sentence)
    assert not GenerationBatch.objects.exists()


def test_more_images_than_a_batch_has_are_refused_at_the_number_of_sets():
    prompts = make_prompt_set(texts="\n".join(f"prompt {n}" for n in range(40)))
    with pytest.raises(EvaluationRefused, match="a batch has at most 5,000") as refusal:
        make_evaluation(prompt_set=prompts, shown=Shown.ONE_PROMPT, set_size=9, sets=16)
    assert refusal.value.field == "sets"


def test_versions_that_draw_the_same_sets_cannot_be_compared(settings, tmp_path):
    settings.CLIP_DIR = str(tmp_path)
    evaluation = make_evaluation([make_person("rater")], opened=False, shown=Shown.ONE_PROMPT, set_size=4)
    for batch in (evaluation.baseline_batch, evaluation.candidate_batch):
        make_equal_samples(batch)
    (job,) = run_due_jobs(kinds=[evaluations.KIND])
    assert job.error == "The two versions draw the same images, so there is nothing to compare."


def test_too_few_drawn_images_are_said_and_open_nothing(settings, tmp_path):
    settings.CLIP_DIR = str(tmp_path)
    evaluation = make_evaluation([make_person("rater")], opened=False, shown=Shown.ONE_PROMPT, set_size=4)
    for batch in (evaluation.baseline_batch, evaluation.candidate_batch):
        make_samples(batch)
        batch.samples.filter(index=3).delete()
        finish_job(batch.job)
    (job,) = run_due_jobs(kinds=[evaluations.KIND])
    assert job.error == "A set has 4 images; both versions drew too few of the same prompts for one."
    assert not Campaign.objects.exists()


def test_the_job_opens_the_sets_once(settings, tmp_path):
    settings.CLIP_DIR = str(tmp_path)
    evaluation = make_evaluation([make_person("rater")], opened=False, shown=Shown.ONE_PROMPT, set_size=4)
    for batch in (evaluation.baseline_batch, evaluation.candidate_batch):
        make_samples(batch)
        finish_job(batch.job)
    run_due_jobs(kinds=[evaluations.KIND])
    finish_job(evaluation.job, JobState.FAILED)
    queue.retry(evaluation.job, by=None)
    run_due_jobs(kinds=[evaluations.KIND])
    assert Campaign.objects.get().items.count() == 4


def test_what_was_drawn_before_is_not_drawn_again(settings):
    settings.CODE_VERSION = ""  # As the samples of the factory have it.
    raters = [make_person("rater")]
    first = make_evaluation(raters, shown=Shown.ONE_PROMPT, set_size=4)
    same = {"prompt_set": first.prompt_set, "opened": False, "shown": Shown.ONE_PROMPT, "set_size": 4}
    third = make_parent(parent=first.candidate)
    again = make_evaluation(raters, baseline=first.candidate, candidate=third, **same)
    assert again.baseline_batch == first.candidate_batch
    assert again.candidate_batch.samples.count() == 0
    # Other seeds, and what another version of the program drew, are drawn.
    other = make_evaluation(raters, baseline=first.baseline, candidate=first.candidate, seed=1, **same)
    assert {other.baseline_batch.seed, other.candidate_batch.seed} == {1}
    settings.CODE_VERSION = "later"
    later = make_evaluation(raters, baseline=first.baseline, candidate=first.candidate, **same)
    assert later.baseline_batch != first.baseline_batch


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        (
            ["candidate"] * 4,
            "v2 is more varied than v1: it has the more varied set in 100% [51, 100] of 4 judgments of 4 prompts",
        ),
        (["baseline"] * 4, "v1 is more varied than v2: v2 has the more varied set in only 0% [0, 49] of 4 judgments"),
        (
            ["candidate", "baseline", "tie", "tie"],
            "v2 and v1 cannot be told apart by their variety: v2 has the more varied set in 50% ",
        ),
    ],
)
def test_the_win_rate_is_that_of_known_answers(sides, words):
    rater, baseline = make_person("rater"), make_parent(number=1)
    candidate = make_parent(number=2, parent=baseline)
    evaluation = make_evaluation([rater], baseline=baseline, candidate=candidate, shown=Shown.ONE_PROMPT, set_size=4)
    judge(evaluation.campaign, rater, sides)
    verdict = EvaluationVerdict(evaluation)
    assert verdict.sentence.startswith(words)
    assert verdict.counts == {side: sides.count(side) for side in ("candidate", "baseline", "tie")} | {"both_bad": 0}
    assert verdict.rate.value == (sides.count("candidate") + sides.count("tie") / 2) / 4
    assert "The left set won" in verdict.left_sentence
    said = verdict.as_json()
    assert (said["shown"], said["set_size"], said["win_rate"]["n"]) == ("one-prompt", 4, 4)


def test_votes_of_one_group_of_prompts_are_one_cluster():
    raters = [make_person("rater") for _ in range(2)]
    prompts = make_prompt_set(texts=TEN)
    evaluation = make_evaluation(raters, prompt_set=prompts, shown=Shown.MANY_PROMPTS, set_size=4, sets=2, overlap=2)
    for rater in raters:
        judge(evaluation.campaign, rater, ["candidate"] * 4)
    rate = EvaluationVerdict(evaluation).rate
    assert (rate.n, rate.clusters) == (8, 2)
    assert "of 8 judgments of 2 groups of prompts" in EvaluationVerdict(evaluation).sentence


def form_of(evaluation: Evaluation, **fields) -> dict:
    data = {
        "baseline": evaluation.baseline_id,
        "candidate": evaluation.candidate_id,
        "prompt_set": evaluation.prompt_set_id,
        "seed": 7,
        "steps": 4,
        "guidance": 4,
        "overlap": 1,
        "raters": [make_person("rater").pk],
    }
    return data | fields


def test_the_form_starts_sets_and_says_what_does_not_fit(client):
    before = make_evaluation(opened=False)
    client.force_login(make_person(Role.OPERATOR))
    address = reverse("evaluation_new")
    sets = {"shown": "one-prompt", "set_size": 9, "sets": 2}
    assert client.post(address, form_of(before, **sets)).status_code == 302
    made = Evaluation.objects.first()
    assert (made.shown, made.set_size, made.baseline_batch.images_per_prompt) == ("one-prompt", 9, 18)
    refused = client.post(address, form_of(before, shown="many-prompts", set_size=9, sets=1))
    assert refused.status_code == 422
    assert "A set of 9 prompts needs 9 prompts;" in refused.content.decode()
    missing = client.post(address, form_of(before, shown="one-prompt", set_size=5))
    assert set(missing.context["form"].errors) == {"set_size", "sets"}
    # Two images as before: what is said of sets is left alone.
    assert client.post(address, form_of(before, images_per_prompt=2, sets="many")).status_code == 302
    assert (Evaluation.objects.first().shown, Evaluation.objects.first().set_size) == ("pairs", 0)


def test_the_page_shows_both_sets_once_the_judge_is_through(client):
    rater = make_person(Role.RATER, Role.CURATOR)
    evaluation = make_evaluation([rater], shown=Shown.ONE_PROMPT, set_size=4)
    judge(evaluation.campaign, rater, ["candidate"] * 4)
    client.force_login(rater)
    address = evaluation.get_absolute_url()
    assert 'class="set"' not in client.get(address).content.decode()
    client.force_login(make_person(Role.CURATOR))
    page = client.get(address).content.decode()
    assert page.count('class="set" data-count="4"') == 8
    assert page.count('title="chosen"') == 4
    assert "No sets of this outcome." in client.get(address, {"outcome": "baseline"}).content.decode()
