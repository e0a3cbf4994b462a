"""Rows of this room for tests, as plain functions: drawn samples without a model, campaigns, and judgments by the real verbs."""

import itertools
import uuid
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from accounts.models import Role, User
from curation.assignments import lease_items
from curation.campaigns import close_campaign, create_campaign, create_compare_campaign, create_set_campaign
from curation.estimates import DIGITS
from curation.examples import Example, as_examples, examples_of
from curation.guidelines import revise_guidelines
from curation.judgments import record_judgments
from curation.models import Assignment, Campaign, CampaignKind, Dataset, DatasetKind, GuidelineRevision
from curation.recounts import estimate_tables
from generation.images import store_with_thumbnail
from generation.models import GenerationBatch, ModelOrigin, ModelVersion, Prompt, PromptSet, Sample
from jobs.models import Job, JobState
from tests.accounts.factories import make_person
from tests.generation.factories import make_png

_numbers = itertools.count(1)


def make_rater() -> User:
    return make_person(Role.RATER)


def make_curator() -> User:
    return make_person(Role.CURATOR)


def make_model(**fields: Any) -> ModelVersion:
    number = next(_numbers)
    defaults = {
        "number": number,
        "name": "tiny",
        "origin": ModelOrigin.IMPORTED,
        "content_hash": f"{number:064x}",
        "manifest": {},
        "image_size": 32,
        "has_alpha": True,
        "created_by": make_person(Role.OPERATOR),
    }
    return ModelVersion.objects.create(**defaults | fields)


def make_batch(
    prompts: Sequence[str] = ("a happy cat",),
    *,
    captions: Sequence[str] = (),
    each: int = 1,
    model: ModelVersion | None = None,
    draw: bool = True,
) -> GenerationBatch:
    """A finished batch whose samples are plain squares, each of another colour. Buckets alternate between two names."""
    model = model or make_model()
    by = model.created_by
    number = next(_numbers)
    prompt_set = PromptSet.objects.create(
        slug=f"prompts-{number}",
        name=f"Prompts {number}",
        content_hash=f"{number:064x}",
        prompt_count=len(prompts),
        created_by=by,
    )
    rows = Prompt.objects.bulk_create(
        Prompt(
            prompt_set=prompt_set,
            position=position,
            text=text,
            bucket=("emotion", "scene")[position % 2],
            caption=caption,
        )
        for position, (text, caption) in enumerate(zip_longest(prompts, captions, fillvalue=""))
    )
    batch = GenerationBatch.objects.create(
        name=f"Batch {number}",
        model_version=model,
        prompt_set=prompt_set,
        images_per_prompt=each,
        width=32,
        height=32,
        sample_count=each * len(prompts),
        job=_finished_job(),
        created_by=by,
    )
    if draw:
        Sample.objects.bulk_create(
            [_sample(batch, prompt, index) for prompt in rows for index in range(each)],
        )
    return batch


def _finished_job() -> Job:
    return Job.objects.create(
        kind="generation.draw_batch", queue="generate", state=JobState.SUCCEEDED, finished_at="2026-01-01T00:00:00Z"
    )


def _sample(batch: GenerationBatch, prompt: Prompt, index: int) -> Sample:
    number = next(_numbers)
    stored = store_with_thumbnail(make_png((number % 256, number // 256 % 256, 80, 200)))
    return Sample(
        batch=batch,
        prompt=prompt,
        index=index,
        seed=number,
        image=stored.image,
        thumbnail=stored.thumbnail,
        width=stored.width,
        height=stored.height,
    )


def make_campaign(kind: str = "alignment", *, items: int = 1, raters: Sequence[User] = (), **fields: Any) -> Campaign:
    """An open campaign of that many items, each with a prompt of its own."""
    number = next(_numbers)
    batch = make_batch([f"prompt {number}-{position}" for position in range(items)])
    defaults = {"name": f"Campaign {number}", "by": make_curator(), "batches": [batch], "open_now": True}
    return create_campaign(kind, raters=raters, **defaults | fields)


def make_row(assignment: Assignment | int, answers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """A judgment as a client sends it."""
    pk = assignment if isinstance(assignment, int) else assignment.pk
    row = {
        "id": str(uuid.uuid4()),
        "assignment": pk,
        "answers": {"alignment": "pass"} if answers is None else answers,
        "shown_at": "2026-11-23T09:30:00Z",
        "decided_at": "2026-11-23T09:30:02Z",
        "order": [],
        "supersedes": None,
    }
    return row | fields


def judge_all(campaign: Campaign, rater: User, answers: dict[str, str] | None = None) -> int:
    """The rater leases and judges all that is left for them, and how many that were."""
    done = 0
    while leased := lease_items(campaign, rater, 50):
        results = record_judgments(rater, [make_row(assignment, answers) for assignment in leased])
        assert {result.status for result in results} == {"stored"}
        done += len(leased)
    return done


def make_comparison(
    pairs: Sequence[tuple[Prompt, Sample, Sample]], sides: Sequence[str], *, close: bool = True
) -> Campaign:
    """A comparison of these (prompt, baseline, candidate) where one rater said baseline, candidate, tie or both_bad of each;
    what is left over is not judged."""
    rater = make_rater()
    campaign = create_compare_campaign(f"Comparison {next(_numbers)}", pairs, by=make_curator(), raters=[rater])
    rows = []
    for assignment, side in zip(lease_items(campaign, rater, max(len(sides), 1)), sides, strict=True):
        choice = {
            ("baseline", "candidate")[slot]: where
            for slot, where in zip(assignment.order, ("left", "right"), strict=True)
        }
        rows.append(make_row(assignment, {"preference": choice.get(side, side)}))
    assert {result.status for result in record_judgments(rater, rows)} == {"stored"}
    if close:
        close_campaign(campaign, by=campaign.created_by)
    return campaign


def draw_beside(batch: GenerationBatch) -> GenerationBatch:
    """What another version draws of the same prompts and seeds."""
    other = GenerationBatch.objects.get(pk=batch.pk)
    other.pk, other.model_version = None, make_model()
    other.job = _finished_job()
    other.save(force_insert=True)
    for sample in batch.samples.select_related("prompt"):
        drawn = _sample(other, sample.prompt, sample.index)
        drawn.seed = sample.seed
        drawn.save(force_insert=True)
    return other


def make_sets(prompts: Sequence[str] = ("a happy cat",), *, size: int = 4) -> list[tuple[list[Sample], list[Sample]]]:
    """(baseline's set, candidate's set) of each prompt, by two versions from the same seeds."""
    baseline = make_batch(prompts, each=size)
    candidate = draw_beside(baseline)
    return [
        tuple(list(batch.samples.filter(prompt=prompt).order_by("index")) for batch in (baseline, candidate))
        for prompt in baseline.prompt_set.prompts.order_by("position")
    ]


def make_set_campaign(
    prompts: Sequence[str] = ("a happy cat",), *, size: int = 4, raters: Sequence[User] = (), **fields: Any
) -> Campaign:
    """An open campaign of one pair of sets for each prompt."""
    return create_set_campaign(
        f"Sets {next(_numbers)}", make_sets(prompts, size=size), by=make_curator(), raters=raters, **fields
    )


def draw_again(sample: Sample, prompt: Prompt) -> Sample:
    """Another sample of the batch that shows the same picture, for this prompt."""
    again = Sample.objects.get(pk=sample.pk)
    again.pk, again.prompt, again.index = None, prompt, next(_numbers)
    again.save(force_insert=True)
    return again


def make_dataset(*campaigns: Campaign, by: User | None = None) -> Dataset:
    number = next(_numbers)
    compares = any(campaign.kind == CampaignKind.COMPARE for campaign in campaigns)
    dataset = Dataset.objects.create(
        slug=f"dataset-{number}",
        name=f"Dataset {number}",
        kind=DatasetKind.PAIRS if compares else DatasetKind.IMAGES,
        created_by=by or make_curator(),
    )
    dataset.campaigns.set(campaigns)
    return dataset


def full_posteriors(campaign: Campaign) -> dict[int, dict[str, dict[str, float]]]:
    """Item id -> question -> answer -> how likely it is the true one, by the full EM over all judgments of now."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for each in estimate_tables(campaign):
        for item, shares in zip(each.items, each.posteriors.tolist(), strict=True):
            likely = {value: round(share, DIGITS) for value, share in zip(each.kept.answers, shares, strict=True)}
            found.setdefault(item, {})[each.kept.question] = likely
    return found


def add_example(
    campaign: Campaign,
    *samples: Sample,
    change: str = "Another example",
    asks_percent: int | None = None,
    **fields: Any,
) -> GuidelineRevision:
    """A revision that shows this sample too, or in a comparison these two; a good one unless it is said. What it showed of
    them before is changed."""
    newest = campaign.revisions.get(number=campaign.revisions.count())
    answers = {question.name: question.values[0] for question in campaign.questions.all()}
    if campaign.kind == CampaignKind.PICK:
        answers, fields = {}, {"is_good": True} | fields
    shown = Example(tuple(sample.pk for sample in samples), **{"answers": answers, "why": "As it should be"} | fields)
    return revise_guidelines(
        campaign,
        newest.text,
        change=change,
        based_on=newest.number,
        by=campaign.created_by,
        examples=[*(row for row in as_examples(examples_of(newest)) if row.samples != shown.samples), shown],
        asks_percent=asks_percent,
    )
