"""The build itself, run small: every stage for seconds, so that the models are real in shape and bad in art."""

import json
import os
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from diffusers import StableDiffusionPipeline

ROOT = Path(__file__).parents[2]
STAGES = "renders,text,vae,routing,unet,decoder,clip,export"


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo.build", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    work, out = folder / "work", folder / "out"
    options = ("--budget", "0.5", "--scenes", "400", "--work", str(work), "--out", str(out))
    first = build(*options, "--stages", "renders,text,vae")
    assert first.returncode == 0, first.stderr
    second = build(*options, "--stages", STAGES)
    assert second.returncode == 0, second.stderr
    return work, out, second.stdout


@pytest.mark.model
def test_build_goes_on_where_it_was_and_says_how_far_it_is(built):
    _, _, said = built
    for stage in ("renders", "text", "vae"):
        assert f"{stage}: done before." in said
    assert "unet caching" in said or "unet training" in said
    assert '"minutes_left"' in said


@pytest.mark.model
def test_build_leaves_folders_that_plain_libraries_load(built):
    _, out, _ = built
    pipeline = StableDiffusionPipeline.from_pretrained(out / "model", dtype=torch.float32)
    image = pipeline("a cat", num_inference_steps=2).images[0]
    assert (image.mode, image.size) == ("RGBA", (128, 128))
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out / 'clip'}")
    assert model.encode_text(open_clip.get_tokenizer(f"local-dir:{out / 'clip'}")(["a cat"])).shape == (1, 128)


@pytest.mark.model
def test_denoiser_is_trained_by_the_engine_and_the_decoder_after_it(built):
    work, out, _ = built
    run = json.loads((work / "unet" / "run.json").read_text())
    assert [source["name"] for source in run["sources"]][::2] == [
        "photographic",
        "plain",
        "die-cut",
        "outline",
        "pastel",
    ]
    assert json.loads((work / "unet" / "result.json").read_text())["steps"] == run["steps"]
    before, after = (
        StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32).vae.state_dict()
        for folder in (work / "parent", out / "model")
    )
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "post_quant_conv"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--stages", "vae,nonsense"), "There is no stage nonsense."),
        (("--budget", "0"), "The budget must be more than 0 minutes."),
        (("--scenes", "10"), "The CLIP model needs at least 400 scenes."),
    ],
)
def test_build_refuses_nonsense_with_a_sentence(arguments, sentence):
    refused = build(*arguments)
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr
