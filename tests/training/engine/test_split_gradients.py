"""Style Tailoring's two halves on a model that predicts epsilon: neither side of T' learns anything from the other's images."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from generation.engine.folders import hash_folder
from tests.training.engine.conftest import MakeRun
from training.engine.draws import Draw
from training.engine.group import Group
from training.engine.objectives import example_errors
from training.engine.preparation import prepare
from training.engine.recipe import load_run
from training.engine.run import Run

CONTENT, STYLE = 0, 1
T_PRIME = 900


@pytest.fixture
def run(make_run: MakeRun, parent: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Run:
    """A run of content in t > 900 and style in t <= 900 on a copy of the parent that predicts epsilon."""
    copy = tmp_path / "epsilon"
    shutil.copytree(parent, copy)
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "epsilon"}))
    changes = {
        "parent": str(copy),
        "parent_hash": hash_folder(copy)[0],
        "mixture": request.param,
        "caption_dropout": 0.0,
    }
    folder = make_run(**changes)
    return prepare(folder, load_run(folder / "run.json"), lambda: False, Group())


def gradients(run: Run, draws: Sequence[Draw], exchanged: int | None = None) -> list[torch.Tensor]:
    """Of the sum of the draws' losses; with the images and captions of one source exchanged for the other's."""
    encoded = run.encoded
    if exchanged is not None:
        other = 1 - exchanged
        latents, texts = list(encoded.latent_keys), list(encoded.text_keys)
        # As many as it had: the other source has fewer, or more.
        count = len(latents[exchanged])
        latents[exchanged] = [latents[other][i % len(latents[other])] for i in range(count)]
        texts[exchanged] = [texts[other][i % len(texts[other])] for i in range(count)]
        encoded = replace(encoded, latent_keys=tuple(latents), text_keys=tuple(texts))
    errors, weights = example_errors(run.learner.network, draws, replace(run.inputs, encoded=encoded))
    (errors * weights).sum().backward()
    found = [
        torch.zeros_like(each) if each.grad is None else each.grad.clone() for each in run.learner.parameters.values()
    ]
    run.learner.optimizer.zero_grad(set_to_none=True)
    return found


def differ(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("run", ["natural", "shares"], indirect=True)
def test_neither_side_of_the_split_has_a_gradient_from_the_others_images(run: Run) -> None:
    assert run.inputs.diffusion.prediction_type == "epsilon"
    draws = [run.mixture.draw(step, slot) for step in range(60) for slot in range(4)]
    sides = {
        STYLE: [draw for draw in draws if draw.timestep <= T_PRIME][:12],
        CONTENT: [draw for draw in draws if draw.timestep > T_PRIME][:12],
    }
    for own, side in sides.items():
        assert len(side) == 12
        before = gradients(run, side)
        assert any(each.abs().sum() > 0 for each in before)
        # Not small, but none at all: other images in the other source leave every bit of the gradients as it was.
        assert not differ(before, gradients(run, side, exchanged=1 - own))
        assert differ(before, gradients(run, side, exchanged=own))


@pytest.mark.parametrize("run", ["natural"], indirect=True)
def test_a_draw_on_the_wrong_side_would_be_seen(run: Run) -> None:
    draws = [run.mixture.draw(step, slot) for step in range(10) for slot in range(4)]
    clean = [draw for draw in draws if draw.timestep <= T_PRIME][:6]
    wrong = [*clean[:-1], replace(clean[-1], source=CONTENT, image=0)]
    assert differ(gradients(run, wrong), gradients(run, wrong, exchanged=CONTENT))
