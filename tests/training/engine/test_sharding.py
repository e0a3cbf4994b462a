"""Runs whose weights lie in shards: the losses of one process, whole checkpoints, and what is refused."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from generation.engine.folders import hash_file, hash_folder
from tests.tiny_flux import build_tiny_flux
from tests.training.engine.conftest import MakeRun
from tests.training.engine.faults import not_finite_from, run_not_finite_from
from tests.training.engine.test_process import WarmGroup, finish, start_warm, trained, wait_until
from tests.training.engine.test_trainer import UNET, lines
from training.engine.learner import make_learner
from training.engine.recipe import RunRefused, load_run
from training.engine.sharding import local
from training.engine.trainer import run_training


@pytest.fixture
def make_run(make_run: MakeRun, small_parent: Path) -> MakeRun:
    return partial(make_run, parent=str(small_parent), parent_hash=hash_folder(small_parent)[0])


@pytest.mark.processes
def test_two_processes_with_shards_train_what_one_does(make_run: MakeRun) -> None:
    # 9 examples a step are 5 and 4: the second process makes up the number of passes.
    changes = {"steps": 6, "gradient_accumulation": 3, "ema_decay": 0.9, "batch_size": 3, "sample_every": 6}
    alone, together = make_run("alone", **changes), make_run("together", sharded=True, **changes)
    single, group = start_warm(alone), WarmGroup(together, 2)
    assert (finish(single), group.wait(300)) == (0, 0)
    one, other = (lines(folder / "metrics.jsonl") for folder in (alone, together))
    assert [line["step"] for line in other] == list(range(1, 7))
    for a, b in zip(one, other, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["loss_by_source"] == pytest.approx(a["loss_by_source"], rel=1e-5)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)
    seen = [lines(folder / "events.jsonl") for folder in (alone, together)]
    kinds = [[(e["kind"], e["step"]) for e in each] for each in seen]
    # When a checkpoint is written beside the steps is left to chance.
    assert sorted(kinds[0]) == sorted(kinds[1])
    assert [(e["processes"], e["sharded"]) for e in seen[1] if e["kind"] == "started"] == [(2, True)]
    for a, b in zip(*([e["loss"] for e in each if e["kind"] == "validation"] for each in seen), strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    for name in ("weights", "optimizer", "ema"):
        a, b = (load_file(folder / f"checkpoints/step-000006/{name}.safetensors") for folder in (alone, together))
        assert {key: each.shape for key, each in a.items()} == {key: each.shape for key, each in b.items()}
        assert all(torch.allclose(a[key], b[key], rtol=1e-3, atol=1e-5) for key in a), name
    weights = [load_file(folder / UNET) for folder in (alone, together)]
    # float16 on disk: the last bit may go the other way.
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=2e-3) for name in weights[0])
    drawn = [(folder / "samples/step-000006/00.png").exists() for folder in (alone, together)]
    assert drawn == [True, True]


@pytest.mark.processes
def test_group_that_is_killed_goes_on_in_shards_or_alone(make_run: MakeRun, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"steps": 24, "checkpoint_every": 4, "sample_every": 0, "validate_every": 0}
    whole, torn = (make_run(name, sharded=True, ema_decay=0.9, **changes) for name in ("whole", "torn"))
    others, group = WarmGroup(whole, 2), WarmGroup(torn, 2)
    wait_until(trained(torn, 6), 300)
    os.kill(json.loads((torn / "progress.json").read_text())["pid"], signal.SIGKILL)
    assert group.wait(300) != 0
    assert others.wait(300) == 0
    single = Path(shutil.copytree(torn, tmp_path / "single"))
    group, one = WarmGroup(torn, 2), start_warm(single)
    assert (group.wait(300), finish(one)) == (0, 0)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)
    resumed = [e for folder in (torn, single) for e in lines(folder / "events.jsonl") if e["kind"] == "resumed"]
    assert [(e["exact"], e["processes"], e.get("sharded", False)) for e in resumed] == [
        (True, 2, True),
        (False, 1, False),
    ]
    losses = [[line["loss"] for line in lines(folder / "metrics.jsonl")] for folder in (whole, single)]
    assert len(losses[1]) == 24
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.processes
@pytest.mark.parametrize("checkpoint_every", [2, 100], ids=["checkpoint", "parent"])
def test_group_goes_back_in_shards_as_one_process_does(make_run: MakeRun, checkpoint_every: int) -> None:
    """To the last checkpoint, or to the parent where there is none; and what is published is what was validated last."""
    changes = {"steps": 10, "checkpoint_every": checkpoint_every, "ema_decay": 0.9, "sample_prompts": []}
    alone, together = make_run("alone", **changes), make_run("together", sharded=True, **changes)
    group = WarmGroup(together, 2, partial(run_not_finite_from, 3, 6))
    patch = not_finite_from(3, 6)
    try:
        run_training(alone)
    finally:
        patch.undo()
    assert group.wait(300) == 0
    seen = [lines(folder / "events.jsonl") for folder in (alone, together)]
    back = [[(e["step"], e["to"], e["rate"]) for e in each if e["kind"] == "rolled_back"] for each in seen]
    assert back[0] == back[1]
    assert [to for _, to, _ in back[0]] == [8 if checkpoint_every == 2 else 0]
    losses = [[line["loss"] for line in lines(folder / "metrics.jsonl")] for folder in (alone, together)]
    finite = [[loss for loss in each if loss is not None] for each in losses]
    assert [each is None for each in losses[0]] == [each is None for each in losses[1]]
    assert finite[1] == pytest.approx(finite[0], rel=1e-5)
    results = [json.loads((folder / "result.json").read_text()) for folder in (alone, together)]
    assert results[1]["final_loss"] == pytest.approx(results[0]["final_loss"], rel=1e-5)
    assert results[1]["validation"]["loss"] == pytest.approx(results[0]["validation"]["loss"], rel=1e-5)


@pytest.mark.processes
def test_group_that_is_told_to_stop_saves_its_shards_and_goes_on(make_run: MakeRun) -> None:
    changes: dict[str, Any] = {"steps": 24, "checkpoint_every": 100, "sample_every": 0, "validate_every": 0}
    alone, torn = make_run("alone", **changes), make_run("torn", sharded=True, **changes)
    group = WarmGroup(torn, 2)
    run_training(alone)
    wait_until(trained(torn, 3), 300)
    (torn / "cancel").touch()
    assert group.wait(300) != 0
    (torn / "cancel").unlink()
    stopped = lines(torn / "events.jsonl")[-1]
    assert (stopped["kind"], 3 <= stopped["step"] < 24) == ("stopped", True)
    assert WarmGroup(torn, 2).wait(300) == 0
    losses = [[line["loss"] for line in lines(folder / "metrics.jsonl")] for folder in (alone, torn)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.processes
def test_low_rank_updates_of_a_flux_are_those_of_one_process(make_run: MakeRun, tmp_path: Path) -> None:
    parent = build_tiny_flux(tmp_path / "flux", seed=5)
    changes = {
        "parent": str(parent), "parent_hash": hash_folder(parent)[0], "mixture": "shares", "method": "lora", "lora_rank": 2,
        "learning_rate": 0.01, "sample_every": 0, "gradient_checkpointing": True, "steps": 4,
    }  # fmt: skip
    alone, together = make_run("alone", **changes), make_run("together", sharded=True, **changes)
    single, group = start_warm(alone), WarmGroup(together, 2)
    assert (finish(single), group.wait(300)) == (0, 0)
    losses = [[line["loss"] for line in lines(folder / "metrics.jsonl")] for folder in (alone, together)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for file in ("lora/pytorch_lora_weights.safetensors", "transformer/diffusion_pytorch_model.safetensors"):
        one, other = (load_file(folder / "result" / file) for folder in (alone, together))
        assert set(one) == set(other)
        assert all(torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5) for name in one)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_each_process_keeps_a_part_of_everything(parent: Path, make_run: MakeRun, method: str) -> None:
    """As the first of four processes, in a group that exchanges nothing."""
    settings = load_run(make_run(sharded=True, ema_decay=0.9, method=method) / "run.json")
    distributed.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    try:
        unet = UNet2DConditionModel.from_pretrained(parent / "unet", dtype=torch.float32).requires_grad_(False)
        before = sum(each.numel() for each in unet.parameters())
        learner = make_learner(unet, settings, init_device_mesh("cpu", (4,)))
        for each in learner.parameters.values():
            each.grad = torch.ones_like(each)
        learner.optimizer.step()
        assert learner.ema is not None
        moments = [value for state in learner.optimizer.state.values() for key, value in state.items() if key != "step"]
        trained_numbers = sum(each.numel() for each in learner.parameters.values())
        for kept in (learner.parameters.values(), learner.ema.values(), moments[::2], moments[1::2]):
            # Tensors whose first axis does not part by four leave the first process a little more.
            assert sum(local(each).numel() for each in kept) < 0.35 * trained_numbers
        assert sum(local(each).numel() for each in unet.parameters()) < 0.3 * before
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optimizer": "adafactor"}, "only AdamW"),
        ({"optimizer": "adamw8bit"}, "only AdamW"),
        ({"kernels": "compiled"}, "in the plain way"),
        ({"objective": "alpha"}, "A decoder is small"),
        ({"objective": "dpo"}, "not learned in shards"),
        ({"shapes": "aspect"}, "all images are squares"),
    ],
)
def test_what_does_not_go_with_shards_is_refused(make_run: MakeRun, changes: dict[str, str], sentence: str) -> None:
    folder = make_run(sharded=True, **changes)
    values = json.loads((folder / "run.json").read_text())
    for source in values["sources"]:
        source["band"] = {}
    (folder / "run.json").write_text(json.dumps(values))
    with pytest.raises(RunRefused, match=sentence) as refused:
        load_run(folder / "run.json")
    assert refused.value.field == next(iter(changes))
