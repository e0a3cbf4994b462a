"""Ways of computing a step: tried once, kept where they win, and the same when a run goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_trainer import UNET, Killed, kill_at, lines
from training.engine import kernels, preparation, resuming
from training.engine.group import Group
from training.engine.kernels import CHANNELS_LAST, COMPILED, choose_kernels, use_way
from training.engine.recipe import RunRefused, load_run
from training.engine.run import Run
from training.engine.steps import train_step
from training.engine.trainer import run_training


def prepared(folder: Path) -> Run:
    run = preparation.prepare(folder, load_run(folder / "run.json"), lambda: False, Group())
    resuming.resume(run)
    run.learner.network.train()
    return run


def pretend_seconds(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> list[str]:
    """Every way takes what is said; returns those that were tried."""
    tried: list[str] = []

    def time_passes(run: Run, way: tuple[str, ...]) -> float:
        name = "+".join(way) or "plain"
        tried.append(name)
        if name not in seconds:
            raise RuntimeError("no compiler")
        return seconds[name]

    monkeypatch.setattr(kernels, "_time_passes", time_passes)
    return tried


def trial(run: Run) -> dict[str, Any]:
    choose_kernels(run)
    return next(line for line in lines(run.folder / "events.jsonl") if line["kind"] == "kernels")


def first_convolution(run: Run) -> torch.Tensor:
    return next(each for each in run.learner.parameters.values() if each.ndim == 4 and each.shape[2] > 1)


def test_a_probe_times_real_passes_and_learns_nothing(make_run: MakeRun) -> None:
    run = prepared(make_run(kernels="probe"))
    before = {name: each.detach().clone() for name, each in run.learner.parameters.items()}
    found = trial(run)
    assert set(found["seconds"]) == {"plain", CHANNELS_LAST}  # Six steps are not worth compiling for.
    assert all(each > 0 for each in found["seconds"].values())
    assert found["failed"] == {}
    assert all(torch.equal(each, before[name]) for name, each in run.learner.parameters.items())
    assert all(each.grad is None for each in run.learner.parameters.values())
    assert run.learner.step == 0


def test_without_a_gpu_nothing_is_tried_unless_asked(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = pretend_seconds(monkeypatch, {"plain": 1.0})
    run = prepared(make_run())
    choose_kernels(run)
    assert (tried, run.way) == ([], ())


def test_what_wins_is_kept_and_built_upon(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"plain": 1000.0, CHANNELS_LAST: 900.0, "channels_last+compiled": 600.0}
    tried = pretend_seconds(monkeypatch, seconds)
    run = prepared(make_run("first", kernels="probe"))
    assert trial(run)["way"] == [CHANNELS_LAST, COMPILED]
    assert run.way == (CHANNELS_LAST, COMPILED)
    assert first_convolution(run).is_contiguous(memory_format=torch.channels_last)
    # A run like it on this machine does not try again.
    again = prepared(make_run("second", kernels="probe"))
    assert trial(again)["way"] == [CHANNELS_LAST, COMPILED]
    assert tried == list(seconds)


def test_what_is_hardly_faster_is_not_kept(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_seconds(monkeypatch, {"plain": 1.0, CHANNELS_LAST: 0.99})
    run = prepared(make_run(kernels="probe"))
    assert trial(run)["way"] == []
    assert first_convolution(run).is_contiguous()


def test_what_fails_is_said_and_not_remembered_for_others(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = pretend_seconds(monkeypatch, {"plain": 1000.0, CHANNELS_LAST: 1001.0})
    run = prepared(make_run("first", kernels="probe"))
    found = trial(run)
    assert (found["way"], found["failed"]) == ([], {COMPILED: "RuntimeError: no compiler"})
    trial(prepared(make_run("second", kernels="probe")))
    assert len(tried) == 6


def test_a_step_that_must_be_compiled_and_cannot_is_refused(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_seconds(monkeypatch, {})
    with pytest.raises(RunRefused, match=r"cannot be compiled here\. RuntimeError: no compiler") as refused:
        choose_kernels(prepared(make_run(kernels="compiled")))
    assert refused.value.field == "kernels"


def test_8_bits_do_not_go_with_channels_last(make_run: MakeRun) -> None:
    with pytest.raises(RunRefused, match="lays weights out itself"):
        load_run(make_run(kernels="channels_last", optimizer="adamw8bit") / "run.json")


def test_short_memory_is_left_to_the_first_step(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = pretend_seconds(monkeypatch, {})
    run = prepared(make_run(kernels="probe"))
    assert trial(run)["way"] == []
    assert tried == ["plain"]


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_run_goes_on_as_it_began_to_the_same_bits(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, ema_decay: float | None
) -> None:
    pretend_seconds(monkeypatch, {"plain": 1.0, CHANNELS_LAST: 0.5})
    whole = make_run("whole", kernels="probe", ema_decay=ema_decay)
    run_training(whole)
    torn = make_run("torn", kernels="probe", ema_decay=ema_decay)
    with pytest.raises(Killed):
        run_training(torn, kill_at(torn, 4))
    pretend_seconds(monkeypatch, {"plain": 0.1, CHANNELS_LAST: 0.5})
    run_training(torn)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)
    events = lines(torn / "events.jsonl")
    assert [event["way"] for event in events if event["kind"] == "kernels"] == [[CHANNELS_LAST]]
    assert next(event for event in events if event["kind"] == "resumed")["exact"]


def test_ways_compute_the_same(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tracing alone: what a compiler makes of it is torch's, and takes minutes here.
    compile_network = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compile_network(network, backend="eager"))
    found = []
    for number, way in enumerate([(), (CHANNELS_LAST,), (COMPILED,)]):
        run = prepared(make_run(str(number), ema_decay=0.9, steps=3))
        train_step(run)
        use_way(run, way)
        metrics = [train_step(run) for _ in range(2)]
        assert (run.learner.network._compiled_call_impl is not None) == (COMPILED in way)
        found.append([(each["loss"], each["grad_norm"]) for each in metrics])
    for other in found[1:]:
        assert other == [pytest.approx(each, rel=1e-4) for each in found[0]]
