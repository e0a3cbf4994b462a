"""What is wrong with the room's rows and files, for `manage.py verify`: each problem one sentence."""

from collections.abc import Iterator

from django.db.models import Count, F

from generation.engine.folders import FolderRefused, hash_folder, hash_manifest
from generation.images import Kind, image_matches
from generation.models import GenerationBatch, ModelVersion, PromptSet, Sample
from generation.prompt_sets import hash_prompts
from jobs.models import JobState


def problems() -> Iterator[str]:
    """Every difference between what the rows say and what lies in the store."""
    yield from _prompt_problems()
    yield from _model_problems()
    yield from _batch_problems()
    yield from _image_problems()


def _prompt_problems() -> Iterator[str]:
    for prompt_set in PromptSet.objects.prefetch_related("prompts").iterator(chunk_size=20):
        prompts = [(prompt.text, prompt.bucket, prompt.caption) for prompt in prompt_set.prompts.all()]
        if len(prompts) != prompt_set.prompt_count or hash_prompts(prompts) != prompt_set.content_hash:
            yield f"The prompts of {prompt_set} are not those that it was made of."


def _model_problems() -> Iterator[str]:
    for version in ModelVersion.objects.order_by("number"):
        if hash_manifest(version.manifest) != version.content_hash:
            yield f"The manifest of model {version} does not have the hash that names the model."
        if not version.folder.is_dir():
            yield f"The folder of model {version} is missing: {version.folder}."
            continue
        try:
            found, _ = hash_folder(version.folder)
        except (FolderRefused, OSError):
            yield f"The folder of model {version} cannot be read: {version.folder}."
            continue
        if found != version.content_hash:
            yield f"The files of model {version} differ from its manifest: {version.folder}."


def _batch_problems() -> Iterator[str]:
    complete = GenerationBatch.objects.filter(job__state=JobState.SUCCEEDED).annotate(drawn=Count("samples"))
    rows = complete.exclude(drawn=F("sample_count")).values_list("pk", "name", "drawn", "sample_count")
    for pk, name, drawn, wanted in rows.order_by("pk"):
        yield f"Batch {pk} “{name}” is complete with {drawn} of {wanted} samples."


def _image_problems() -> Iterator[str]:
    """Files that are missing or changed; each file is read once, however many samples show it."""
    kinds: list[tuple[Kind, str]] = [("image", "image"), ("thumbnail", "thumbnail")]
    for kind, field in kinds:
        names = Sample.objects.order_by(field).values_list(field, flat=True).distinct()
        for sha256 in names.iterator(chunk_size=1000):
            yield from _file_problems(sha256, kind)
    for sha256 in ModelVersion.objects.exclude(probe_image="").values_list("probe_image", flat=True):
        yield from _file_problems(sha256, "image")


def _file_problems(sha256: str, kind: Kind) -> Iterator[str]:
    try:
        if not image_matches(sha256, kind):
            yield f"The {kind} {sha256} has changed since it was drawn."
    except FileNotFoundError:
        yield f"The {kind} {sha256} is missing."
    except OSError:
        yield f"The {kind} {sha256} cannot be read."
    except ValueError:
        yield f"A row names the {kind} “{sha256}”, which is no hash."
