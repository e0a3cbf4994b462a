"""Model versions: where folders may come from, how they are kept, how they are numbered and promoted."""

import threading
from contextlib import contextmanager

import pytest
from django.db import IntegrityError, connection, transaction

from generation import model_versions
from generation.engine.folders import hash_folder
from generation.model_versions import (
    ImportRefused,
    _add_version,
    find_importable,
    place_folder,
    promote,
    register_folder,
    resolve_import,
)
from generation.models import ModelOrigin, ModelPromotion, ModelVersion
from jobs.context import JobFailed, LeaseLost
from tests.generation.factories import make_model, make_person


def test_import_path_stays_below_the_allowed_folders(settings, tmp_path):
    inside, outside = tmp_path / "imports" / "a", tmp_path / "outside"
    inside.mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "imports" / "link").symlink_to(outside)
    settings.IMPORT_ROOTS = [str(tmp_path / "imports"), str(tmp_path / "none")]
    assert resolve_import("a") == inside
    assert resolve_import(inside) == inside
    for path in (outside, "../outside", "a/../../outside", "link", "/", "b", "a\x00"):
        with pytest.raises(ImportRefused):
            resolve_import(path)


def test_model_folders_below_the_allowed_ones_are_offered(import_root):
    assert find_importable() == [import_root / "model"]


def test_placed_folder_is_a_whole_copy_under_its_hash(settings, tmp_path, tiny_folder):
    settings.MODELS_DIR = tmp_path / "models"
    content_hash, manifest = hash_folder(tiny_folder)
    placed = place_folder(tiny_folder, content_hash, manifest)
    assert placed == tmp_path / "models" / content_hash
    assert hash_folder(placed) == (content_hash, manifest)
    assert place_folder(tmp_path / "gone", content_hash, manifest) == placed
    assert [each.name for each in placed.parent.iterdir()] == [content_hash]


def test_folder_that_changes_while_it_is_copied_is_not_kept(settings, tmp_path, tiny_folder):
    settings.MODELS_DIR = tmp_path / "models"
    content_hash, manifest = hash_folder(tiny_folder)
    with pytest.raises(JobFailed) as failed:
        place_folder(tiny_folder, "0" * 64, manifest)
    assert "changed while it was copied" in failed.value.sentence
    with pytest.raises(JobFailed):
        place_folder(tiny_folder, content_hash, {**manifest, "more.json": {}})
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.django_db(transaction=True)
def test_versions_that_are_added_at_once_get_numbers_of_their_own():
    person = make_person("operator")
    barrier = threading.Barrier(6)

    def add(place: int) -> None:
        barrier.wait(30)
        try:
            with transaction.atomic():
                _add_version(
                    content_hash=f"{place // 2:064x}",
                    name=f"Model {place}",
                    origin="imported",
                    manifest={},
                    image_size=32,
                    created_by=person,
                )
        finally:
            connection.close()

    threads = [threading.Thread(target=add, args=[place]) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(ModelVersion.objects.order_by("number").values_list("number", flat=True)) == [1, 2, 3]
    assert ModelVersion.objects.values("content_hash").distinct().count() == 3


@pytest.mark.django_db
def test_promoted_is_the_newest_until_somebody_decides():
    assert ModelVersion.objects.promoted() is None
    first, second, operator = make_model(), make_model(), make_person("operator")
    assert ModelVersion.objects.promoted() == second
    promote(first, by=operator, reason="calmer")
    make_model()
    assert ModelVersion.objects.promoted() == first
    assert promote(first, by=operator).reason == "calmer"
    promote(second, by=operator)
    promote(first, by=operator)
    assert list(ModelPromotion.objects.order_by("id").values_list("model_version__number", flat=True)) == [1, 2, 1]


@pytest.mark.django_db
def test_database_refuses_a_trained_version_without_a_parent():
    with pytest.raises(IntegrityError, match="model_trained_has_parent"), transaction.atomic():
        make_model(origin="trained")


class QuietContext:
    """As much of a JobContext as making a version uses."""

    def check(self) -> None: ...

    def progress(self, *said: object) -> None: ...

    @contextmanager
    def fenced(self):
        with transaction.atomic():
            yield


@pytest.mark.django_db(transaction=True)
def test_a_version_is_there_only_with_what_it_belongs_to(settings, tmp_path, tiny_folder, monkeypatch):
    settings.MODELS_DIR = tmp_path / "models"
    monkeypatch.setattr(model_versions, "draw_probe", lambda *given: "")
    asked = {"name": "one", "origin": ModelOrigin.IMPORTED, "parent": None, "created_by": make_person("operator")}

    def fail(version: ModelVersion) -> None:
        raise LeaseLost("This attempt is ours no more.")

    with pytest.raises(LeaseLost):
        register_folder(QuietContext(), tiny_folder, **asked, link=fail)
    assert not ModelVersion.objects.exists()
    linked: list[ModelVersion] = []
    # The second time the version is there already.
    for _ in range(2):
        register_folder(QuietContext(), tiny_folder, **asked, link=linked.append)
    assert linked == [ModelVersion.objects.get()] * 2
