"""Ways of computing the same step, tried on the run's own first step and kept only where they win.

channels_last: weights and activations with their channels innermost, as convolutions on GPUs like them. compiled: the
network's passes fused by torch.compile. Neither changes what is computed; both change the order of sums, and so the last
bits. A run therefore keeps the way that it began with, and all runs of the same network, step and machine share one finding.
"""

import hashlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from training.engine.learner import Learner
from training.engine.memory import is_out_of_memory
from training.engine.recipe import LAYS_OUT_ITSELF, RunRefused
from training.engine.run import Run
from training.engine.run_files import write_json
from training.engine.steps import draws_of, pass_through

# The options that a step is computed with: none is the plain way.
Way = tuple[str, ...]
PLAIN, CHANNELS_LAST, COMPILED = "plain", "channels_last", "compiled"
OPTIONS = (CHANNELS_LAST, COMPILED)
# By the setting `kernels`; "auto" and "probe" try.
WAYS: dict[str, Way] = {PLAIN: (), CHANNELS_LAST: (CHANNELS_LAST,), COMPILED: (COMPILED,)}
WARM_UPS, PASSES = 1, 3
# A way must save this share of a pass: less is the machine's mood.
LEAST_GAIN = 0.02
# Compiling takes long, each time that the run is started (170 s for a U-Net of 860 M weights on an H100 with 16 cores, to save 7% of its passes):
# steps that take less in all are not worth it.
COMPILING_PAYS_SECONDS = 1800.0


def choose_kernels(run: Run) -> None:
    """Compute the run's steps as its settings say: in a way by name, or in the one that is fastest here.

    "auto" tries on a GPU, "probe" everywhere. A run that began before goes on as it began. Raises `RunRefused` where the
    settings ask for a compiled step and it cannot be compiled.
    """
    setting = run.settings.kernels
    if run.group.is_sharded:
        return
    if setting in WAYS:
        _use_named(run, WAYS[setting])
        return
    began = run.group.gather(run.files.events("kernels"))[0]
    if began:
        use_way(run, tuple(began[-1]["way"]))
    elif run.learner.step == 0 and (setting == "probe" or run.pipeline.device.type == "cuda"):
        finding = _known(run) or _try_all(run)
        use_way(run, tuple(finding["way"]) if finding else ())
        if finding:
            run.files.event("kernels", 0, **finding)


def _use_named(run: Run, way: Way) -> None:
    why = ""
    if COMPILED not in way:
        use_way(run, way)
    else:
        try:
            _time_passes(run, way)
        except Exception as error:
            # Where memory is short, the first step takes less at once.
            why = "" if is_out_of_memory(error) else _in_words(error)
    if run.group.any(bool(why)):
        raise RunRefused(f"The run's steps cannot be compiled here. {why}".strip(), field="kernels")


def use_way(run: Run, way: Way) -> None:
    """Lay out the learner's tensors, and compile its network, as `way` says: the same numbers in any way."""
    learner = run.learner
    learner.network._compiled_call_impl = None
    if CHANNELS_LAST in way or CHANNELS_LAST in run.way:
        layout = torch.channels_last if CHANNELS_LAST in way else torch.contiguous_format
        learner.network.to(memory_format=layout)
        _lay_out_alike(learner)
    if COMPILED in way:
        learner.network.compile()
    run.way = way


def _lay_out_alike(learner: Learner) -> None:
    """What is kept of each weight lies in memory as the weight does: optimizers walk over both."""
    with torch.no_grad():
        for name, parameter in learner.parameters.items():
            kept = learner.optimizer.state.get(parameter, {})
            for slot, value in kept.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    kept[slot] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            if learner.ema is not None:
                learner.ema[name] = torch.empty_like(parameter).copy_(learner.ema[name])


def _try_all(run: Run) -> dict[str, Any] | None:
    """{"way", "seconds": {way: of a step's passes}, "failed": {way: why}}: each option on top of what won before it; None
    once somebody wants the run to stop. What failed is not remembered for other runs."""
    run.files.progress(phase="trying kernels", now=True)
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    best: Way = ()
    for option in ("", *OPTIONS):
        way = (*best, option) if option else ()
        if not run.group.agree(_is_worth_trying(run, option, seconds)):
            continue
        try:
            seconds[_name(way)], why = _time_passes(run, way), ""
        except Exception as error:  # Compilers fail in many ways, and none of them ends a run that goes without.
            why = _in_words(error)
        # Where one process cannot, none does.
        if run.group.any(bool(why)):
            failed[_name(way)] = why
        elif run.group.agree(_wins(seconds, way, best)):
            best = way
        if run.group.agree(run.stop()):
            return None
    finding = {"way": list(best), "seconds": {name: round(each, 6) for name, each in seconds.items()}, "failed": failed}
    if run.group.is_main and not failed:
        path = _path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, finding)
    return finding


def _name(way: Way) -> str:
    return "+".join(way) or PLAIN


def _is_worth_trying(run: Run, option: str, seconds: dict[str, float]) -> bool:
    if option and not seconds:
        return False  # Not even the plain way goes: memory is short, and the first step deals with that.
    if option == COMPILED and run.settings.shapes != "square":
        # What is compiled for the first shape that comes decides the next one's bits, and a resumed run begins with another.
        return False
    if option == COMPILED:
        return run.settings.steps * min(seconds.values()) > COMPILING_PAYS_SECONDS
    return option != CHANNELS_LAST or run.settings.optimizer not in LAYS_OUT_ITSELF


def _wins(seconds: dict[str, float], way: Way, best: Way) -> bool:
    return way != best and seconds[_name(way)] < (1 - LEAST_GAIN) * seconds[_name(best)]


def _time_passes(run: Run, way: Way) -> float:
    """The median seconds of forward and backward over the run's first step. Nothing is learned."""
    draws = draws_of(run, 0)
    times = []
    use_way(run, way)
    run.learner.network.train()
    try:
        for _ in range(WARM_UPS + PASSES):
            _synchronize(run)
            started = time.perf_counter()
            pass_through(run, draws)
            _synchronize(run)
            times.append(time.perf_counter() - started)
            run.learner.optimizer.zero_grad(set_to_none=True)
    finally:
        run.learner.optimizer.zero_grad(set_to_none=True)
        # What varies in this way may not in the one that is chosen.
        run.varying = ""
    return statistics.median(times[WARM_UPS:])


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _synchronize(run: Run) -> None:
    if run.pipeline.device.type == "cuda":
        torch.cuda.synchronize(run.pipeline.device)


def _known(run: Run) -> dict[str, Any] | None:
    """What an earlier run of the same kind found on such a machine; all processes go by what the main one reads."""
    try:
        finding = json.loads(_path(run).read_text())
    except (OSError, ValueError):
        finding = None
    return run.group.gather(finding)[0]


def _path(run: Run) -> Path:
    """In the cache that runs share, by all that the finding depends on."""
    settings, device = run.settings, run.pipeline.device
    deciding = {
        "machine": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "network": {key: str(value) for key, value in sorted(run.learner.network.config.items())},
        "resolution": run.pipeline.resolution,
        "processes": run.group.size,
        **{
            name: getattr(settings, name)
            for name in (
                "method",
                "objective",
                "precision",
                "batch_size",
                "gradient_accumulation",
                "gradient_checkpointing",
                "optimizer",
                "steps",
                "shapes",
            )
        },
    }
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
    return run.folder / settings.cache_dir / "kernels" / f"{digest}.json"
