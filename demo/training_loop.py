"""The training loop of the demo build: a wall-time budget, a cosine learning rate, and checkpoints to resume from."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Budget:
    """How long to train: at most `steps` optimizer steps and at most `minutes` of wall time, whichever ends first."""

    steps: int
    minutes: float = math.inf


def half_precision(device: str) -> torch.autocast:
    """bfloat16 arithmetic where the hardware has it; a processor without it would be many times slower so."""
    # torch says nothing public of a CPU's instructions before 2.11.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    is_fast = device == "cuda" or bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.autocast(device, torch.bfloat16, enabled=is_fast)


@dataclass(frozen=True)
class Loop:
    """What a stage trains. `loss(step, progress)` returns the scalar loss of a step and a dict of figures for the log;
    `progress` is the share of the budget that is gone, 0 to 1."""

    name: str
    parameters: list[torch.nn.Parameter]
    state: dict[str, torch.nn.Module]
    loss: Callable[[int, float], tuple[torch.Tensor, dict[str, float]]]
    learning_rate: float
    after_step: Callable[[int], None] = lambda step: None
    every: Callable[[int], None] = lambda step: None
    every_steps: int = 250
    decays: bool = True


def train(loop: Loop, budget: Budget, work: Path) -> int:
    """Run the loop, and return the number of steps done. A checkpoint in `work` is continued, its time counted."""
    work.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(loop.parameters, lr=loop.learning_rate, weight_decay=0.01, betas=(0.9, 0.99))
    checkpoint = work / f"{loop.name}.pt"
    step, spent = _resume(checkpoint, loop, optimizer)
    started = time.monotonic() - spent
    with (work / f"{loop.name}.jsonl").open("a") as log:
        while step < budget.steps:
            minutes = (time.monotonic() - started) / 60
            progress = max(step / budget.steps, minutes / budget.minutes)
            if progress >= 1:
                break
            rate = loop.learning_rate * min(1.0, (step + 1) / 50)
            if loop.decays:
                rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, figures = loop.loss(step, progress)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"The loss of {loop.name} is {loss.item()} at step {step}.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(loop.parameters, 1.0)
            optimizer.step()
            step += 1
            loop.after_step(step)
            # The first step says at once that the stage runs, and how long it will.
            if step % 25 == 0 or step == 1:
                line = {
                    "step": step,
                    "minutes": round(minutes, 2),
                    "minutes_left": round(minutes / max(progress, 1e-9) - minutes, 1),
                    "loss": round(loss.item(), 5),
                    "lr": rate,
                    **figures,
                }
                print(loop.name, json.dumps(line), flush=True)
                log.write(json.dumps(line) + "\n")
            if step % loop.every_steps == 0:
                _save(checkpoint, loop, optimizer, step, time.monotonic() - started)
                loop.every(step)
    _save(checkpoint, loop, optimizer, step, time.monotonic() - started)
    loop.every(step)
    return step


def _save(checkpoint: Path, loop: Loop, optimizer: torch.optim.Optimizer, step: int, spent: float) -> None:
    state = {"modules": {name: module.state_dict() for name, module in loop.state.items()}}
    temporary = checkpoint.with_suffix(".tmp")
    torch.save(state | {"optimizer": optimizer.state_dict(), "step": step, "spent": spent}, temporary)
    temporary.rename(checkpoint)


def _resume(checkpoint: Path, loop: Loop, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    if not checkpoint.exists():
        return 0, 0.0
    state = torch.load(checkpoint, weights_only=True)
    for name, module in loop.state.items():
        module.load_state_dict(state["modules"][name])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["spent"]
