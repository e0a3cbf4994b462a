"""Transparency through the product: recipe, run, version, drawing, and the decoder lent to another U-Net."""

import io
import shutil
from pathlib import Path

import pytest
from django.urls import reverse
from PIL import Image
from safetensors.torch import load_file, save_file

from demo.tiny import build_tiny
from generation import combinations
from generation.engine.encoders import hash_encoder
from generation.images import open_image
from generation.models import GenerationBatch, ModelOrigin, ModelVersion
from jobs.models import JobState
from jobs.testing import run_due_jobs
from tests.generation.factories import make_model
from tests.rgb_models import without_alpha
from tests.training.factories import (
    make_dataset_version,
    make_person,
    make_prompt_set,
    make_real_parent,
)
from training import evaluations, integrity
from training.curves import curve
from training.model_cards import card
from training.models import Recipe, TrainingRun

pytestmark = [pytest.mark.model, pytest.mark.django_db(transaction=True)]

RECIPE = {
    "name": "Cut out",
    "preset": "transparency",
    "steps": 3,
    "batch_size": 4,
    "learning_rate": "0.001",
    "method": "full",
    "lr_schedule": "constant",
    "mixture": "natural",
    "seed": 0,
    "holdout": "0.2",
    "backgrounds": 2,
}


def test_recipe_run_version_and_drawing_of_the_demo_model(client, settings, tmp_path):
    parent = make_real_parent(without_alpha(settings.BASE_DIR / "demo" / "model", tmp_path / "rgb"), has_alpha=False)
    client.force_login(make_person("curator", "operator"))
    stickers = make_dataset_version("Stickers", 6)

    form = {**RECIPE, "stickers": [stickers.pk], "schedule": parent.pk}
    preview = client.get(reverse("recipe_preview"), form).content.decode()
    assert "learns at no noise level" in preview
    assert "axis__plot" not in preview
    answer = client.post(reverse("recipe_new"), form)
    recipe = Recipe.objects.get()
    assert answer["Location"] == recipe.get_absolute_url()
    page = client.get(recipe.get_absolute_url()).content.decode()
    assert "Backgrounds besides white" in page
    assert "axis__plot" not in page
    like = client.get(reverse("recipe_new"), {"like": recipe.slug}).context["form"]
    assert (like["preset"].value(), like["stickers"].value()) == ("transparency", [stickers.pk])

    prompts = make_prompt_set(texts="a happy cat\na sad dog")
    client.post(reverse("run_new"), {"recipe": recipe.pk, "parent": parent.pk, "watch": prompts.pk})
    run = TrainingRun.objects.get()
    run_due_jobs()
    run.refresh_from_db()
    assert run.job.state == JobState.SUCCEEDED, run.job.error
    page = client.get(run.get_absolute_url()).content.decode()
    assert "alpha IoU" in page
    assert "before training" in page
    assert "noise band" not in page
    assert [each["label"] for each in curve(run, "alpha")["series"]] == ["all"]
    assert {each["label"] for each in curve(run, "parts")["series"]} == {"colour", "alpha"}
    assert curve(run, "psnr")["y_label"] == "PSNR, dB"
    samples = run.samples.order_by("step")
    assert {each.step for each in samples} == {0, 3}
    assert all(mode_of(each.image) == "RGBA" for each in samples)

    version = run.result
    changed = {name for name in version.manifest if version.manifest[name] != parent.manifest[name]}
    assert changed == {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}
    assert (version.has_alpha, version.parent) == (True, parent)
    assert hash_encoder(version.folder) == hash_encoder(parent.folder)
    said = card(version)
    assert "Its decoder was taught transparency" in said
    assert "IoU" in said

    client.post(
        reverse("batch_new"),
        {
            "prompt_set": prompts.pk, "model_version": version.pk, "images_per_prompt": 1, "seed": 1, "steps": 2,
            "guidance": 2, "scheduler": "ddim",
        },
    )  # fmt: skip
    run_due_jobs()
    drawn = GenerationBatch.objects.get(model_version=version).samples.all()
    assert [mode_of(each.image) for each in drawn] == ["RGBA", "RGBA"]

    evaluation = evaluations.start_evaluation(
        baseline=parent,
        candidate=version,
        prompt_set=prompts,
        raters=[make_person("rater")],
        by=make_person("operator"),
    )
    assert evaluation.candidate_batch.model_version == version
    assert [problem for problem in integrity.problems() if "valuation" not in problem] == []


def test_any_finetuned_unet_borrows_the_decoder_of_a_version_with_its_encoder(client, tiny_folder, tmp_path):
    rgb = make_real_parent(without_alpha(tiny_folder, tmp_path / "rgb"), has_alpha=False)
    # The tiny model itself: the same encoder, and a decoder that says alpha.
    rgba = make_real_parent(tiny_folder, parent=rgb)
    finetuned = change_unet(tmp_path, rgb)
    operator = make_person("operator")
    client.force_login(operator)
    assert list(combinations.decoders_for(finetuned)) == [rgba]
    page = client.get(finetuned.get_absolute_url()).content.decode()
    assert "With another decoder" in page

    answer = client.post(reverse("model_decoder", args=[finetuned.number]), {"decoder_of": rgba.pk})
    assert answer["Location"] == reverse("models")
    run_due_jobs()
    made = ModelVersion.objects.get(origin=ModelOrigin.COMBINED)
    assert (made.parent, made.decoder_of, made.has_alpha) == (finetuned, rgba, True)
    for name, entry in made.manifest.items():
        assert entry == (rgba if name.startswith("vae/") else finetuned).manifest[name]
    assert f"v{made.number}" in client.get(reverse("models")).content.decode()
    page = client.get(made.get_absolute_url()).content.decode()
    assert "Decoder of" in page
    assert str(rgba) in page
    said = card(made)
    assert f"The decoder comes from v{rgba.number}:" in said
    assert said.count(rgb.content_hash) == 2
    # It draws, which its probe proved, and asked for again it is the same version.
    assert mode_of(made.probe_image) == "RGBA"
    client.post(reverse("model_decoder", args=[finetuned.number]), {"decoder_of": rgba.pk})
    run_due_jobs()
    assert ModelVersion.objects.filter(origin=ModelOrigin.COMBINED).count() == 1


def test_another_encoder_is_refused_in_a_sentence(client, tiny_folder, tmp_path):
    version = make_real_parent(tiny_folder)
    stranger = make_real_parent(build_tiny(tmp_path / "other", seed=8))
    client.force_login(make_person("operator"))
    answer = client.post(reverse("model_decoder", args=[version.number]), {"decoder_of": stranger.pk}, follow=True)
    assert "do not share their encoder" in answer.content.decode()
    assert ModelVersion.objects.count() == 2
    # Where the web has no files, the worker says it.
    with pytest.raises(combinations.CombinationRefused, match="already"):
        combinations.request_combination(version, version, by=make_person("operator"))
    client.post(reverse("model_decoder", args=[version.number]), {"decoder_of": version.pk}, follow=True)
    elsewhere = make_model(image_size=version.image_size)
    job = combinations.request_combination(version, elsewhere, by=make_person("operator"))
    run_due_jobs()
    job.refresh_from_db()
    assert (job.state, job.error) == (JobState.FAILED, f"The folder of {elsewhere} is not on this machine.")


def test_only_operators_combine_versions(client, tiny_folder):
    version = make_real_parent(tiny_folder)
    client.force_login(make_person("curator"))
    assert client.post(reverse("model_decoder", args=[version.number])).status_code == 403
    assert "With another decoder" not in client.get(version.get_absolute_url()).content.decode()


def change_unet(tmp_path: Path, parent: ModelVersion) -> ModelVersion:
    """A version whose U-Net alone differs from its parent's, as a finetuning leaves it."""
    folder = tmp_path / "finetuned"
    shutil.copytree(parent.folder, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.01 * each for name, each in load_file(path).items()}, path, metadata={"format": "pt"})
    return make_real_parent(folder, parent=parent, has_alpha=False)


def mode_of(sha256: str) -> str:
    with open_image(sha256) as file:
        return Image.open(io.BytesIO(file.read())).mode
