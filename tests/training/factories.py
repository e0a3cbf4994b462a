"""Rows of this room for tests, as plain functions."""

import contextlib
import hashlib
import itertools
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.db import transaction
from PIL import Image

from accounts.models import Role, User
from curation.assignments import lease_items
from curation.judgments import record_judgments
from curation.models import Approval, ApprovalAct, Campaign, Dataset, DatasetEntry, DatasetKind, DatasetVersion
from generation.batches import plan_batch
from generation.drawing import sample_seed
from generation.engine.folders import hash_folder, inspect_folder
from generation.images import store_with_thumbnail
from generation.model_versions import describe, place_folder
from generation.models import GenerationBatch, ModelVersion, Sample
from jobs import queue
from jobs.models import JobState
from tests.accounts.factories import make_person
from tests.generation.factories import finish_job, make_batch, make_model, make_png, make_prompt_set, make_samples
from training import comparisons, corpora
from training.evaluations import paired_samples, start_evaluation
from training.model_cards import card
from training.models import Corpus, Evaluation, Preset, Recipe, TrainingRun
from training.recipes import create_recipe, schedule_of
from training.runs import start_run

_numbers = itertools.count(1)
# Stable Diffusion's schedule, as the demo model has it.
SCHEDULER_CONFIG = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}


def make_parent(**fields: Any) -> ModelVersion:
    """A row of a model version whose noise schedule is known, without a folder."""
    config = {"size_factor": 8, "scheduler_config": SCHEDULER_CONFIG, "parameters": {"unet": 300_000}}
    return make_model(**{"config": config, "byte_size": 1_000_000, **fields})


def make_real_parent(folder: Path, **fields: Any) -> ModelVersion:
    """A version whose folder lies in the store, so that it can be trained and drawn."""
    content_hash, manifest = hash_folder(folder)
    place_folder(folder, content_hash, manifest)
    report = inspect_folder(folder)
    return make_model(
        content_hash=content_hash,
        manifest=manifest,
        config=describe(report),
        image_size=report.resolution,
        byte_size=report.total_bytes,
        **fields,
    )


def draw_by_card(version: ModelVersion, where: Path) -> Image.Image:
    """What the script of a version's card draws, run where its archive was unpacked."""
    script = card(version).split("```python\n")[1].split("```")[0]
    (where / f"v{version.number}").symlink_to(version.folder)
    names: dict[str, Any] = {}
    with contextlib.chdir(where):
        exec(script, names)
    image: Image.Image = names["image"]
    return image


def make_pair_version(name: str = "", pairs: int = 6) -> DatasetVersion:
    """A frozen version of so many pairs of drawn samples of one prompt each."""
    return make_dataset_version(name, pairs, kind=DatasetKind.PAIRS)


@transaction.atomic
def make_dataset_version(
    name: str = "",
    images: int = 6,
    kind: str = DatasetKind.IMAGES,
    sizes: Sequence[tuple[int, int]] = ((32, 32),),
    approved: bool = True,
) -> DatasetVersion:
    """A frozen version of so many drawn samples, whose `sizes` take turns, and from which runs may learn."""
    holds_pairs = kind == DatasetKind.PAIRS
    number = next(_numbers)
    by = make_person(Role.CURATOR)
    texts = "\n".join(f"a happy cat {number} {i}" for i in range(images))
    prompts = make_prompt_set(by, texts=texts)
    batch = make_batch(
        by,
        prompt_set=prompts,
        model_version=ModelVersion.objects.first() or make_parent(),
        images_per_prompt=1 + holds_pairs,
    )
    drawn = sorted(make_samples(batch, sizes=sizes), key=lambda sample: (sample.prompt_id, sample.seed))
    samples = drawn[:: 1 + holds_pairs]
    rejected = drawn[1::2] if holds_pairs else [None] * len(samples)
    dataset = Dataset.objects.create(slug=f"data-{number}", name=name or f"Data {number}", kind=kind, created_by=by)
    version = DatasetVersion.objects.create(
        dataset=dataset,
        number=1,
        content_hash=hashlib.sha256(f"version {number}".encode()).hexdigest(),
        rule="majority",
        entry_count=len(samples),
        frozen_by=by,
    )
    DatasetEntry.objects.bulk_create(
        DatasetEntry(
            version=version,
            position=i,
            sample=each,
            image=each.image,
            caption=each.prompt.text,
            rejected=other,
            rejected_image=other.image if other else "",
        )
        for i, (each, other) in enumerate(zip(samples, rejected, strict=True))
    )
    if approved:
        Approval.objects.create(version=version, act=ApprovalAct.APPROVED, by=by)
    finish_job(batch.job)
    return version


def make_recipe(parent: ModelVersion | None = None, preset: str = Preset.STYLE_TAILORING, **fields: Any) -> Recipe:
    """A recipe of a preset over two small datasets."""
    values: dict[str, Any] = {
        "name": f"Recipe {next(_numbers)}",
        "by": make_person(Role.CURATOR),
        "schedule": schedule_of(parent or make_parent()),
    }
    values |= {key: fields.pop(key) if key in fields else make_dataset_version(key) for key in ("content", "style")}
    return create_recipe(preset=preset, **{**values, **fields})


def make_run(recipe: Recipe | None = None, *, state: str = "", by: User | None = None, **fields: Any) -> TrainingRun:
    """A queued run, or one in the final state that is asked for, with no work done."""
    parent = fields.pop("parent", None) or ModelVersion.objects.first() or make_parent()
    run = start_run(recipe or make_recipe(parent), parent=parent, by=by or make_person(Role.OPERATOR), **fields)
    if state:
        finish_job(run.job, state)
    return run


def make_evaluation(raters: Sequence[User] = (), *, opened: bool = True, **fields: Any) -> Evaluation:
    """An evaluation of two versions over four prompts, drawn and opened without a model, with made-up CLIP scores."""
    baseline = fields.pop("baseline", None) or make_parent()
    candidate = fields.pop("candidate", None) or make_parent(parent=baseline)
    evaluation = start_evaluation(
        baseline=baseline,
        candidate=candidate,
        prompt_set=fields.pop("prompt_set", None) or make_prompt_set(),
        raters=raters,
        by=fields.pop("by", None) or make_person(Role.OPERATOR),
        **fields,
    )
    if not opened:
        return evaluation
    for batch in (evaluation.baseline_batch, evaluation.candidate_batch):
        make_samples(batch)
        finish_job(batch.job)
    pairs = paired_samples(evaluation)
    evaluation.campaign = comparisons.open_comparison(evaluation, pairs)
    evaluation.metrics = {
        "clip": {
            "model": "made up",
            "pairs": [
                {
                    "prompt": first.prompt_id,
                    "baseline_sample": first.pk,
                    "candidate_sample": second.pk,
                    "baseline": 20.0 + i,
                    "candidate": 21.0 + i,
                }
                for i, (first, second) in enumerate(pairs)
            ],
        }
    }
    evaluation.save(update_fields=["campaign", "metrics"])
    finish_job(evaluation.job, JobState.SUCCEEDED)
    return evaluation


def make_corpus(name: str = "Photos", **fields: Any) -> Corpus:
    """A corpus as its job would have left it, without shards."""
    number = next(_numbers)
    job = queue.enqueue(corpora.INDEX_KIND, {}, label=f"Index the corpus {name}")
    finish_job(job)
    png = make_png((number % 256, 40, 40, 255), (64, 48))
    sample = {"name": "0001.png", "caption": "a boat", "width": 640, "height": 480}
    found = {"sides": [[256, 384, 2], [384, 512, 1]], "sizes": [[640, 480, 1], [300, 260, 2]], "problem_count": 1}
    return Corpus.objects.create(
        **{
            "slug": f"corpus-{number}",
            "name": name,
            "folder": "photos",
            "job": job,
            "content_hash": hashlib.sha256(png).hexdigest(),
            "entry_count": 3,
            "shard_count": 1,
            "samples": [{**sample, "thumbnail": store_with_thumbnail(png).thumbnail}],
            "problems": ["0003.png in a.tar has no caption beside it."],
            "created_by": make_person(Role.CURATOR),
            **found,
            **fields,
        }
    )


def make_equal_samples(batch: GenerationBatch) -> None:
    """A batch that drew the same image for everything."""
    stored = store_with_thumbnail(make_png())
    Sample.objects.bulk_create(
        Sample(
            batch=batch,
            prompt=prompt,
            index=index,
            seed=sample_seed(batch.seed, prompt.text, index),
            image=stored.image,
            thumbnail=stored.thumbnail,
            width=stored.width,
            height=stored.height,
        )
        for prompt, index in plan_batch(batch)
    )
    finish_job(batch.job)


def prefer(campaign: Campaign, rater: User, slot: int | None) -> int:
    """The rater judges all pairs for one slot, wherever it is shown (None: a tie), and how many that were."""
    leased = lease_items(campaign, rater, 50)
    rows = []
    for assignment in leased:
        answer = "tie" if slot is None else ("left" if assignment.order[0] == slot else "right")
        rows.append(
            {
                "id": str(uuid.uuid4()),
                "assignment": assignment.pk,
                "answers": {"preference": answer},
                "shown_at": "2026-11-23T09:30:00Z",
                "decided_at": "2026-11-23T09:30:02Z",
                # Places in what was leased: a client never learns which slot is which.
                "order": [0, 1],
                "supersedes": None,
            }
        )
    results = record_judgments(rater, rows)
    assert {result.status for result in results} <= {"stored"}
    return len(leased)
