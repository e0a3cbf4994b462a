"""What `verify` says of this room when rows and files part ways."""

from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.db import connection

from generation.engine.folders import hash_folder, inspect_folder
from generation.images import storage_name
from generation.integrity import problems
from generation.model_versions import describe, place_folder
from generation.models import Prompt, Sample
from tests.generation.factories import finish_job, make_batch, make_model, make_prompt_set, make_samples

pytestmark = pytest.mark.django_db


@pytest.fixture
def batch(settings, tmp_path, tiny_folder):
    """A complete batch of a model whose folder is really there."""
    settings.MODELS_DIR = tmp_path / "models"
    content_hash, manifest = hash_folder(tiny_folder)
    place_folder(tiny_folder, content_hash, manifest)
    config = describe(inspect_folder(tiny_folder))
    model = make_model(content_hash=content_hash, manifest=manifest, config=config)
    made = make_batch(model_version=model, prompt_set=make_prompt_set(name="Emotions"))
    make_samples(made)
    finish_job(made.job)
    return made


@pytest.fixture(autouse=True)
def _own_store(settings, tmp_path):
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "media"), "base_url": None},
        },
    }


def test_whole_workspace_has_no_problem(batch):
    assert list(problems()) == []


def test_changed_and_missing_files_are_named(batch):
    first, second = batch.samples.order_by("pk")[:2]
    Path(default_storage.path(storage_name(first.image))).write_bytes(b"other")
    default_storage.delete(storage_name(second.thumbnail, "thumbnail"))
    assert sorted(problems()) == sorted(
        [f"The image {first.image} has changed since it was drawn.", f"The thumbnail {second.thumbnail} is missing."]
    )


def test_file_that_cannot_be_read_is_named(batch):
    path = Path(default_storage.path(storage_name(batch.samples.first().image)))
    path.unlink()
    path.mkdir()
    (sentence,) = problems()
    assert sentence == f"The image {batch.samples.first().image} cannot be read."


def test_missing_sample_of_a_complete_batch_is_named(batch):
    Sample.objects.filter(pk=batch.samples.first().pk).delete()
    assert list(problems()) == [f"Batch {batch.pk} “Emotions by v1” is complete with 7 of 8 samples."]


def test_changed_model_folder_and_its_loss_are_named(batch):
    model = batch.model_version
    path = model.folder / "model_index.json"
    path.write_text(path.read_text() + "\n")
    assert list(problems()) == [f"The files of model {model} differ from its manifest: {model.folder}."]
    model.folder.rename(model.folder.parent / "elsewhere")
    assert list(problems()) == [f"The folder of model {model} is missing: {model.folder}."]


def test_prompt_that_was_added_behind_the_set_is_named(batch):
    Prompt.objects.create(prompt_set=batch.prompt_set, position=99, text="smuggled in")
    assert list(problems()) == ["The prompts of Emotions v1 are not those that it was made of."]


def test_caption_that_was_changed_behind_the_set_is_named(batch):
    make_prompt_set(name="Taught", texts="prompt,caption\nsticker of a cat,a cat\na dog,")
    assert list(problems()) == []
    connection.check_constraints()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE generation_prompt DISABLE TRIGGER prompt_immutable")
        cursor.execute("UPDATE generation_prompt SET caption = 'a dog' WHERE caption = 'a cat'")
    assert list(problems()) == ["The prompts of Taught v1 are not those that it was made of."]
