"""Rows of this room for tests, as plain functions."""

import hashlib
import io
import itertools
from collections.abc import Sequence
from typing import Any

from django.utils import timezone
from PIL import Image

from accounts.models import User
from generation.batches import plan_batch, request_batch
from generation.drawing import sample_seed
from generation.images import store_image, store_with_thumbnail
from generation.models import GenerationBatch, ModelVersion, PromptSet, Sample
from generation.prompt_sets import create_prompt_set
from jobs.models import Job, JobState

_numbers = itertools.count(1)


def make_person(*roles: str, **fields: Any) -> User:
    """An active person with the roles, who has no password: tests sign them in with `client.force_login`."""
    return User.objects.create_user(f"person{next(_numbers)}@example.org", roles=list(roles), **fields)


def make_png(colour: tuple[int, int, int, int] = (200, 40, 40, 128), size: tuple[int, int] = (32, 32)) -> bytes:
    """A plain RGBA PNG."""
    out = io.BytesIO()
    Image.new("RGBA", size, colour).save(out, "PNG")
    return out.getvalue()


def make_prompt_set(by: User | None = None, *, texts: str = "", name: str = "") -> PromptSet:
    """A prompt set, by default of two buckets with two prompts each."""
    return create_prompt_set(
        name=name or f"Set {next(_numbers)}",
        text=texts or "# happy\na happy cat\na happy dog\n# sad\na sad cat\na sad pizza",
        by=by or make_person("curator"),
    )


def make_model(by: User | None = None, *, parent: ModelVersion | None = None, **fields: Any) -> ModelVersion:
    """A row of a model version without a folder: enough for pages, not for drawing."""
    number = (ModelVersion.objects.order_by("-number").values_list("number", flat=True).first() or 0) + 1
    values: dict[str, Any] = {
        "number": number,
        "name": f"Model {number}",
        "origin": "trained" if parent else "imported",
        "parent": parent,
        "content_hash": hashlib.sha256(f"model {next(_numbers)}".encode()).hexdigest(),
        "manifest": {"model_index.json": {"sha256": "0" * 64, "bytes": 12}},
        "config": {"size_factor": 8, "prediction_type": "v_prediction", "parameters": {"unet": 1}},
        "image_size": 32,
        "has_alpha": True,
        "probe_image": store_image(make_png()),
        "created_by": by or make_person("operator"),
    }
    return ModelVersion.objects.create(**{**values, **fields})


def make_batch(by: User | None = None, **fields: Any) -> GenerationBatch:
    """A requested batch, with its queued job."""
    person = by or make_person("curator")
    fields.setdefault("model_version", ModelVersion.objects.first() or make_model())
    fields.setdefault("prompt_set", PromptSet.objects.first() or make_prompt_set())
    fields.setdefault("images_per_prompt", 2)
    return request_batch(by=person, **fields)


def make_samples(
    batch: GenerationBatch, count: int | None = None, sizes: Sequence[tuple[int, int]] = ((32, 32),)
) -> list[Sample]:
    """The first samples of a batch's plan as if they were drawn, each with an image of its own; `sizes` take turns."""
    samples = []
    for place, (prompt, index) in enumerate(plan_batch(batch)[:count]):
        stored = store_with_thumbnail(make_png((place % 256, batch.pk % 256, 90, 200), sizes[place % len(sizes)]))
        samples.append(
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
        )
    return Sample.objects.bulk_create(samples)


def finish_job(job: Job, state: str = JobState.SUCCEEDED, error: str = "") -> None:
    """A job that is over, without running it."""
    now = timezone.now()
    Job.objects.filter(pk=job.pk).update(state=state, started_at=now, finished_at=now, error=error)
    job.refresh_from_db()
