"""The room's pages: who opens them, what stands on them, and what they say to nonsense."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext

from generation.model_versions import promote
from generation.models import GenerationBatch, ModelPromotion, ModelVersion, PromptSet
from generation.prompt_sets import create_prompt_set
from jobs.models import Job, JobState
from tests.generation.factories import (
    finish_job,
    make_batch,
    make_model,
    make_person,
    make_prompt_set,
    make_samples,
)

pytestmark = pytest.mark.django_db
TEAM = ("curator", "operator", "auditor")
OK, AWAY, NO = 200, 302, 403


@pytest.fixture
def world():
    """A family of two models, a prompt set, and a batch of each model with its samples."""
    parent = make_model()
    child = make_model(parent=parent)
    prompts = make_prompt_set(name="Emotions")
    batches = [make_batch(model_version=version, prompt_set=prompts) for version in (parent, child)]
    for batch in batches:
        make_samples(batch)
        finish_job(batch.job)
    return {"parent": parent, "child": child, "prompts": prompts, "batch": batches[0], "late": batches[1]}


def sign_in(client, *roles):
    person = make_person(*roles)
    client.force_login(person)
    return person


READ_PAGES = [
    "/prompts/",
    "/prompts/emotions/v1/",
    "/batches/",
    "/batches/{batch}/",
    "/batches/{batch}/state/",
    "/batches/{batch}/wall/",
    "/batches/new/estimate/",
    "/models/",
    "/models/1/",
    "/models/2/",
]
# (path, roles that may post)
WRITE_PAGES = [
    ("/prompts/new/", {"curator", "operator"}),
    ("/batches/new/", {"curator", "operator"}),
    ("/models/import/", {"operator"}),
    ("/batches/{batch}/cancel/", {"curator", "operator"}),
    ("/batches/{batch}/retry/", {"curator", "operator"}),
    ("/models/1/promote/", {"operator"}),
]


@pytest.mark.parametrize("path", READ_PAGES)
def test_page_is_the_teams(client, world, path):
    path = path.format(batch=world["batch"].pk)
    assert client.get(path).status_code == AWAY
    for role in TEAM:
        sign_in(client, role)
        assert client.get(path).status_code == OK, role
    for roles in (["rater"], []):
        sign_in(client, *roles)
        response = client.get(path)
        assert response.status_code == NO
        assert b"Emotions" not in response.content


@pytest.mark.parametrize(("path", "writers"), WRITE_PAGES)
def test_page_that_changes_something_is_for_its_roles(client, world, path, writers):
    path = path.format(batch=world["batch"].pk)
    assert client.post(path).status_code == AWAY
    for role in ("rater", "auditor", "curator", "operator"):
        sign_in(client, role)
        status = client.post(path).status_code
        assert (status != NO) == (role in writers), role
        assert status in (OK, AWAY, NO)


@pytest.mark.parametrize("path", ["/prompts/none/v1/", "/prompts/emotions/v9/", "/batches/999999/", "/models/99/"])
def test_what_is_not_there_is_404(client, world, path):
    sign_in(client, "operator")
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/prompts/", "/batches/", "/models/"])
def test_empty_page_says_what_to_do_next(client, path):
    sign_in(client, "operator")
    assert b'class="empty"' in client.get(path).content


def queries(client, path) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(path).status_code == OK
    return len(captured)


@pytest.mark.parametrize("path", ["/prompts/", "/batches/", "/models/"])
def test_list_takes_as_many_queries_for_three_rows_as_for_one(client, path):
    sign_in(client, "curator")
    parent = make_model()
    prompts = make_prompt_set()
    make_samples(make_batch(model_version=parent, prompt_set=prompts))
    client.get(path)
    one = queries(client, path)
    for _ in range(2):
        make_samples(make_batch(model_version=make_model(parent=parent), prompt_set=make_prompt_set()))
    assert queries(client, path) == one


def test_prompt_set_is_made_from_pasted_text(client):
    person = sign_in(client, "curator")
    response = client.post("/prompts/new/", {"name": "Pets", "text": "# happy\na cat\na dog"})
    made = PromptSet.objects.get()
    assert (response.status_code, response["Location"]) == (302, "/prompts/pets/v1/")
    assert (made.created_by, made.prompt_count) == (person, 2)
    page = client.get(response["Location"]).content.decode()
    assert "Pets v1 has 2 prompts." in page
    assert f"/batches/new/?prompt_set={made.pk}" in page


def test_prompt_set_shows_captions_where_it_has_some(client, world):
    person = sign_in(client, "curator")
    assert "Taught as" not in client.get("/prompts/emotions/v1/").content.decode()
    text = "prompt,bucket,caption\nsticker of a cat,pets,a <b>cat</b>\na dog,pets,"
    client.post("/prompts/new/", {"name": "Pets", "text": text})
    page = client.get("/prompts/pets/v1/").content.decode()
    assert "Taught as" in page
    assert "<td>sticker of a cat</td><td>a &lt;b&gt;cat&lt;/b&gt;</td>" in page
    assert "<td>a dog</td><td>–</td>" in page
    made = PromptSet.objects.get(slug="pets")
    copy = client.get(f"/prompts/new/?parent={made.pk}").content.decode()
    assert "sticker of a cat,pets,a &lt;b&gt;cat&lt;/b&gt;" in copy
    create_prompt_set(name="", text="# pets\nsticker of a cat\na dog", by=person, parent=made)
    after = client.get("/prompts/pets/v2/").content.decode()
    assert "Only the order." not in after
    assert "1 with another caption" in after
    assert "taught as “a &lt;b&gt;cat&lt;/b&gt;” → “sticker of a cat”" in after
    assert '<th scope="col">Taught as</th>' not in after


def test_prompt_set_is_made_from_a_file(client):
    sign_in(client, "curator")
    upload = SimpleUploadedFile("pets.csv", b'\xef\xbb\xbfprompt,bucket\n"a cat, asleep",calm\n')
    client.post("/prompts/new/", {"name": "Pets", "file": upload})
    assert list(PromptSet.objects.get().prompts.values_list("text", "bucket")) == [("a cat, asleep", "calm")]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"name": "Pets"}, "Paste some prompts, or choose a file."),
        ({"name": "Pets", "text": " \n "}, "Paste some prompts, or choose a file."),
        ({"text": "a cat"}, "This field is required."),
        ({"name": "Pets", "text": "a cat\na cat"}, "Line 2 repeats line 1: a cat"),
        ({"name": "x" * 121, "text": "a cat"}, "at most 120 characters"),
        ({"name": "Pets", "text": "a\x00cat"}, "Null characters are not allowed."),
        ({"name": "Pets", "text": "a\x07cat"}, "Line 1 has a control character"),
    ],
)
def test_prompt_form_says_what_is_wrong_and_keeps_what_was_typed(client, data, says):
    sign_in(client, "curator")
    response = client.post("/prompts/new/", data)
    assert response.status_code == OK
    assert says in response.content.decode()
    assert not PromptSet.objects.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "The submitted file is empty."),
        ("prompt\nein K\xe4tzchen".encode("latin-1"), "Save it again as “CSV UTF-8”"),
        (b"x" * (4 * 1024 * 1024 + 1), "The file is larger than 4 MB."),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8 text"),
        (b"a\x00b", "Line 1 has a control character"),
        (b'text,bucket\n"a cat, happy",emotion\n', "one of them must be “prompt”"),
        (b'"a cat, happy"\n"a sad dog"\n', "one of them must be “prompt”"),
    ],
)
def test_prompt_file_that_cannot_be_read_is_refused(client, content, says):
    sign_in(client, "curator")
    response = client.post("/prompts/new/", {"name": "Pets", "file": SimpleUploadedFile("a.csv", content)})
    assert says in response.content.decode()
    assert not PromptSet.objects.exists()


def test_prompts_a_line_are_read_from_any_file(client):
    sign_in(client, "curator")
    for number, name in enumerate(("a.txt", "a.csv")):
        content = b"a cat\na dog, asleep\n" if name == "a.csv" else b"a cat, asleep\na dog\n"
        client.post("/prompts/new/", {"name": f"Pets {number}", "file": SimpleUploadedFile(name, content)})
    found = [list(each.prompts.values_list("text", flat=True)) for each in PromptSet.objects.order_by("pk")]
    assert found == [["a cat, asleep", "a dog"], ["a cat", "a dog, asleep"]]


def test_new_version_begins_as_a_copy(client, world):
    sign_in(client, "curator")
    path = f"/prompts/new/?parent={world['prompts'].pk}"
    form = client.get(path).context["form"]
    assert form.initial["text"].startswith("prompt,bucket\na happy cat,happy\n")
    same = client.post(path, {"text": form.initial["text"]})
    assert "These are exactly the prompts of Emotions v1." in same.content.decode()
    client.post(path, {"text": form.initial["text"] + "a new bird,happy\n", "note": "birds"})
    page = client.get("/prompts/emotions/v2/").content.decode()
    assert "Changed since v1" in page
    assert "1 added" in page


def test_long_set_is_shown_in_pages(client):
    sign_in(client, "curator")
    made = make_prompt_set(texts="\n".join(f"prompt {n}" for n in range(450)))
    seen, path = 0, made.get_absolute_url()
    for _ in range(3):
        response = client.get(path)
        seen += len(response.context["prompts"])
        path = made.get_absolute_url() + response.context["next_url"]
    assert seen == 450
    assert response.context["next_url"] == ""


def batch_data(world, **changes):
    data = {
        "prompt_set": world["prompts"].pk,
        "model_version": world["parent"].pk,
        "images_per_prompt": 2,
        "seed": 5,
        "steps": 3,
        "guidance": 4,
        "scheduler": "ddim",
    }
    return {**data, **changes}


def test_batch_is_asked_for_and_its_page_follows(client, world):
    person = sign_in(client, "curator")
    response = client.post("/batches/new/", batch_data(world))
    batch = GenerationBatch.objects.order_by("-pk")[0]
    assert response["Location"] == f"/batches/{batch.pk}/"
    assert (batch.created_by, batch.name, batch.sample_count) == (person, "Emotions by v1", 8)
    assert (batch.width, batch.height, batch.seed, batch.steps) == (32, 32, 5, 3)
    assert (batch.job.state, batch.job.kind, batch.job.url) == (
        JobState.QUEUED,
        "generation.draw_batch",
        f"/batches/{batch.pk}/",
    )
    assert "Waiting for a worker that draws." in client.get(response["Location"]).content.decode()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"images_per_prompt": 0}, "images_per_prompt"),
        ({"images_per_prompt": 1251}, "images_per_prompt"),
        ({"images_per_prompt": "many"}, "images_per_prompt"),
        ({"steps": 0}, "steps"),
        ({"steps": 201}, "steps"),
        ({"guidance": 31}, "guidance"),
        ({"guidance": "nan"}, "guidance"),
        ({"guidance": "inf"}, "guidance"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"width": 33}, "width"),
        ({"width": "9" * 400}, "width"),
        ({"height": 136}, "height"),
        ({"scheduler": "magic"}, "scheduler"),
        ({"prompt_set": 0}, "prompt_set"),
        ({"prompt_set": "x"}, "prompt_set"),
        ({"model_version": ""}, "model_version"),
        ({"negative_prompt": "x" * 1001}, "negative_prompt"),
    ],
)
def test_batch_form_refuses_what_cannot_be_drawn(client, world, changes, field):
    sign_in(client, "curator")
    before = GenerationBatch.objects.count()
    response = client.post("/batches/new/", batch_data(world, **changes))
    assert response.status_code == OK
    assert list(response.context["form"].errors) == [field]
    assert GenerationBatch.objects.count() == before
    assert Job.objects.count() == before


def test_batch_form_offers_the_promoted_model_and_counts_images(client, world):
    operator = sign_in(client, "operator")
    assert client.get("/batches/new/").context["form"].initial["model_version"] == world["child"].pk
    promote(world["parent"], by=operator)
    response = client.get(f"/batches/new/?prompt_set={world['prompts'].pk}")
    assert response.context["form"].initial["model_version"] == world["parent"].pk
    assert "4 prompts × 4 = <strong>16 images</strong>" in response.content.decode()
    partial = client.get("/batches/new/estimate/", batch_data(world, images_per_prompt=2000)).content.decode()
    assert "8,000 images" in partial
    assert "at most 5,000 images" in partial
    assert "Choose prompts and a model" in client.get("/batches/new/estimate/?prompt_set=x").content.decode()


def test_draw_again_takes_over_every_setting(client, world):
    sign_in(client, "curator")
    initial = client.get(f"/batches/new/?again={world['late'].pk}").context["form"].initial
    assert initial == {
        "prompt_set": world["prompts"].pk,
        "model_version": world["child"].pk,
        "images_per_prompt": 2,
        "seed": 0,
        "steps": 20,
        "guidance": 4.0,
        "scheduler": "ddim",
        "negative_prompt": "",
        "width": 32,
        "height": 32,
    }


def test_batch_page_fills_as_images_come(client, world):
    sign_in(client, "curator")
    batch = make_batch(model_version=world["parent"], prompt_set=world["prompts"])
    page = client.get(batch.get_absolute_url()).content.decode()
    assert f'hx-get="/batches/{batch.pk}/wall/?after=-1"' in page
    make_samples(batch, 3)
    part = client.get(f"/batches/{batch.pk}/wall/?after=-1").content.decode()
    assert part.count("<figure") == 3
    assert f"/batches/{batch.pk}/wall/?after=2" in part
    assert client.get(f"/batches/{batch.pk}/wall/?after=2").content.decode().count("<figure") == 0
    state = client.get(f"/batches/{batch.pk}/state/")
    assert "3 of 8" in state.content.decode()
    assert "HX-Refresh" not in state
    finish_job(batch.job)
    assert client.get(f"/batches/{batch.pk}/state/")["HX-Refresh"] == "true"
    assert "hx-get" not in client.get(batch.get_absolute_url()).content.decode().split('id="wall"')[1]


def test_wall_stops_at_a_page_and_goes_on_when_asked(client, world, monkeypatch):
    monkeypatch.setattr("generation.views.batches.WALL", 5)
    sign_in(client, "curator")
    batch = make_batch(model_version=world["parent"], prompt_set=world["prompts"])
    make_samples(batch, 6)
    wall = f"/batches/{batch.pk}/wall/?after="

    def part(after: int) -> tuple[int, bool, bool]:
        shown = client.get(f"{wall}{after}").content.decode()
        return shown.count("<figure"), "Show more" in shown, "every 2s" in shown

    assert (part(-1), part(2), part(4), part(5)) == (
        (5, True, False),
        (2, True, False),
        (1, False, True),
        (0, False, True),
    )
    finish_job(batch.job)
    assert part(4) == (1, False, False)


def test_failed_batch_says_why_and_goes_on(client, world):
    sign_in(client, "curator")
    batch = make_batch(model_version=world["parent"], prompt_set=world["prompts"])
    finish_job(batch.job, JobState.FAILED, "The model's files have changed since it was imported.")
    page = client.get(batch.get_absolute_url()).content.decode()
    assert "The model&#x27;s files have changed" in page
    assert "Go on drawing" in page
    client.post(f"/batches/{batch.pk}/retry/")
    batch.job.refresh_from_db()
    assert batch.job.state == JobState.QUEUED
    client.post(f"/batches/{batch.pk}/cancel/")
    batch.job.refresh_from_db()
    assert batch.job.state == JobState.CANCELLED
    assert "was over" in client.post(f"/batches/{batch.pk}/cancel/", follow=True).content.decode()


def test_auditor_sees_no_buttons(client, world):
    sign_in(client, "auditor")
    for path in (
        "/prompts/",
        "/prompts/emotions/v1/",
        "/batches/",
        f"/batches/{world['batch'].pk}/",
        "/models/",
        "/models/2/",
    ):
        page = client.get(path).content.decode().split('id="main"')[1]
        for words in ("/new/", "Cancel the batch", "Promote v", "/models/import/"):
            assert words not in page, path


def test_model_page_shows_lineage_and_pairs(client, world):
    sign_in(client, "operator")
    response = client.get("/models/2/")
    assert [(a.seed, a.batch_id) for a, _ in response.context["pairs"]] == [
        (b.seed, world["batch"].pk) for _, b in response.context["pairs"]
    ]
    assert len(response.context["pairs"]) == 8
    page = response.content.decode()
    assert "Beside v1" in page
    assert world["child"].content_hash in page
    assert "Model 2" in client.get("/models/1/").content.decode()


def test_operator_promotes_a_version_and_the_next_batch_uses_it(client, world):
    operator = sign_in(client, "operator")
    assert ModelVersion.objects.promoted() == world["child"]
    client.post("/models/1/promote/", {"reason": "steadier"})
    assert ModelVersion.objects.promoted() == world["parent"]
    client.post("/models/1/promote/", {"reason": "twice"})
    assert list(ModelPromotion.objects.values_list("promoted_by", "reason")) == [(operator.pk, "steadier")]
    assert "steadier" in client.get("/models/1/").content.decode()
    client.post("/models/2/promote/", {"reason": "x" * 301})
    assert ModelVersion.objects.promoted() == world["parent"]


@pytest.mark.parametrize("path", ["/etc", "../..", "nothing-here", "", "a\x00b", "/", "~", "link"])
def test_import_page_takes_no_folder_from_elsewhere(client, settings, tmp_path, path):
    root = tmp_path / "imports"
    root.mkdir()
    (tmp_path / "secret").mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    settings.IMPORT_ROOTS = [str(root)]
    sign_in(client, "operator")
    response = client.post("/models/import/", {"path": path, "name": "Evil"})
    assert response.status_code == OK
    assert list(response.context["form"].errors) == ["path"]
    assert not Job.objects.exists()


def test_import_page_says_at_once_what_is_wrong_with_a_folder(client, settings, tmp_path):
    (tmp_path / "empty").mkdir()
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "model_index.json").write_text("{}")
    (pickled / "weights.ckpt").write_bytes(b"x")
    settings.IMPORT_ROOTS = [str(tmp_path)]
    sign_in(client, "operator")
    page = client.post("/models/import/", {"path": "empty", "name": "M"}).content.decode()
    assert "The folder has no model_index.json" in page
    page = client.post("/models/import/", {"path": "pickled", "name": "M"}).content.decode()
    assert "only safetensors weights are accepted" in page
    assert str(pickled) in client.get("/models/import/").content.decode()


def test_import_that_failed_is_told_on_the_models_page(client):
    sign_in(client, "operator")
    job = Job.objects.create(kind="generation.import_model", queue="generate", label="Import M", url="", max_attempts=3)
    finish_job(job, JobState.FAILED, "It draws an empty image.")
    page = client.get("/models/").content.decode()
    assert "It draws an empty image." in page


@pytest.mark.parametrize("name", ["promptset", "prompt", "modelversion", "modelpromotion", "generationbatch", "sample"])
def test_admin_shows_rows_and_changes_none(client, world, name):
    person = make_person("operator", is_staff=True, is_superuser=True)
    client.force_login(person)
    assert client.get(f"/admin/generation/{name}/").status_code == OK
    assert client.get(f"/admin/generation/{name}/add/").status_code == NO
