"""Checkpoints: published whole or not at all, verified before they are used, never pickled.

checkpoints/step-000100/weights.safetensors     the trained parameters by name, float32
                        optimizer.safetensors   the optimizer's moments: "<parameter>|exp_avg", "|exp_avg_sq", "|step"
                                                and so on, as torch names them
                        ema.safetensors         the moving average by name, if the run keeps one
                        state.json              step and the small counters of the loop
                        manifest.json           {"files": {name: {"sha256", "bytes"}}}, written last
quarantine/                                     checkpoints whose files did not match their manifest
"""

import errno
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from generation.engine.folders import hash_file
from training.engine.run_files import sync_folder, write_json
from training.engine.sharding import local, shared_out

Tensors = dict[str, torch.Tensor]


@dataclass
class Checkpoint:
    """The whole state of a run after `step` updates. `state` is small and JSON."""

    step: int
    weights: Tensors
    optimizer: Tensors
    ema: Tensors | None
    state: dict[str, Any]


def checkpoint_name(step: int) -> str:
    return f"step-{step:06d}"


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Publish a checkpoint under `folder`/checkpoints and only then remove those beyond the newest `keep`, of which no two have
    the same weights: steps that were skipped leave older ones in place, which a run can go back to. Where that fails, the
    room that it took is free again."""
    root = folder / "checkpoints"
    root.mkdir(exist_ok=True)
    final = root / checkpoint_name(checkpoint.step)
    temporary = root / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    parts: dict[str, Tensors] = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer}
    if checkpoint.ema is not None:
        parts["ema"] = checkpoint.ema
    with gone_on_failure(temporary):
        temporary.mkdir()
        for name, tensors in parts.items():
            write_tensors(
                {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()},
                temporary / f"{name}.safetensors",
            )
        write_json(temporary / "state.json", {**checkpoint.state, "step": checkpoint.step})
        publish_folder(temporary, final)
    standing = list_checkpoints(folder)
    for older, newer in itertools.pairwise(standing):
        if (updates := _updates(older)) is not None and updates == _updates(newer):
            discard_folder(older)
    for old in list_checkpoints(folder)[:-keep]:
        discard_folder(old)
    return final


def _updates(path: Path) -> int | None:
    """How many updates made its weights; None where that is not known."""
    try:
        updates = json.loads((path / "state.json").read_text()).get("updates")
    except (OSError, ValueError, AttributeError):
        return None
    return updates if isinstance(updates, int) else None


@contextmanager
def gone_on_failure(temporary: Path) -> Iterator[None]:
    """Remove a folder that is being written where that fails: on a full disk it would keep all others from writing."""
    try:
        yield
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_tensors(tensors: Tensors, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Raises `OSError` as any writing does: safetensors says what the system said only in words."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        if not (said := re.search(r"\(os error (\d+)\)", str(error))):
            raise
        raise OSError(int(said[1]), os.strerror(int(said[1])), str(path)) from error


def publish_folder(temporary: Path, final: Path) -> None:
    """Sync the files, add a manifest with their hashes, and rename: `final` appears whole or not at all."""
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    entries = {
        path.relative_to(temporary).as_posix(): {"sha256": hash_file(path), "bytes": path.stat().st_size}
        for path in files
    }
    write_json(temporary / "manifest.json", {"files": entries})
    replaced = final.with_name(f".{final.name}.replaced")
    if final.exists():
        # Aside, and gone only once the new one stands: killed in between, `clear_leftovers` puts it back.
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    temporary.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def discard_folder(path: Path) -> None:
    """Remove a published folder; a half-removed one is never seen under its name."""
    dying = path.with_name(f".{path.name}.old")
    shutil.rmtree(dying, ignore_errors=True)
    path.rename(dying)
    shutil.rmtree(dying, ignore_errors=True)


def discard_beyond(folder: Path, step: int) -> None:
    """Remove the published checkpoints of later steps."""
    for path in list_checkpoints(folder):
        if _step_of(path) > step:
            discard_folder(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """The published checkpoints, oldest first."""
    try:
        found = [path for path in (folder / "checkpoints").iterdir() if path.name.startswith("step-")]
    except FileNotFoundError:
        return []
    return sorted(found, key=_step_of)


def _step_of(path: Path) -> int:
    # As a number: names of more than a million steps are longer.
    return int(path.name.removeprefix("step-"))


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed process was still writing or removing, and put back what it was about to replace."""
    for path in (folder / "checkpoints").glob(".step-*.replaced"):
        standing = path.with_name(path.name.removeprefix(".").removesuffix(".replaced"))
        if not standing.exists():
            path.rename(standing)
    for path in [*(folder / "checkpoints").glob(".step-*"), *folder.glob(".result.*")]:
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.tmp-*"):
        path.unlink(missing_ok=True)


def load_newest(
    folder: Path, is_wanted: Callable[[Mapping[str, Any]], bool] = lambda state: True
) -> tuple[Checkpoint | None, list[str]]:
    """(the newest checkpoint that is whole and wanted by its state, names of damaged ones, which were moved to quarantine/).

    Raises `OSError` where the system cannot read now what may well be whole. A place that a disk cannot read is damage only
    where it can read an older checkpoint: a disk that reads none is in trouble itself.
    """
    damaged: list[str] = []
    unread: list[tuple[Path, OSError]] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            checkpoint = _load(path)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            unread.append((path, error))
            continue
        if checkpoint is None:
            damaged.append(_set_aside(folder, path))
        elif is_wanted(checkpoint.state):
            return checkpoint, damaged + [_set_aside(folder, each) for each, _ in unread]
    if unread:
        raise unread[0][1]
    return None, damaged


def _load(path: Path) -> Checkpoint | None:
    """The checkpoint, or None if any file is missing, unexpected or not what the manifest says. Raises `OSError` for whatever
    says nothing of the files themselves, such as too many open ones."""
    try:
        entries = json.loads((path / "manifest.json").read_text())["files"]
        present = {each.name for each in path.iterdir()} - {"manifest.json"}
        if present != set(entries) or not _matches(path, entries):
            return None
        state = json.loads((path / "state.json").read_text())
        ema = _read_tensors(path / "ema.safetensors") if "ema.safetensors" in entries else None
        weights, optimizer = (_read_tensors(path / f"{name}.safetensors") for name in ("weights", "optimizer"))
        return Checkpoint(int(state["step"]), weights, optimizer, ema, state)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return None


def _read_tensors(path: Path) -> Tensors:
    """Raises `OSError` as any reading does: safetensors says of all files that it cannot open that they are not there."""
    try:
        return load_file(path)
    except OSError as error:
        with path.open("rb"):
            raise OSError(errno.EAGAIN, str(error), str(path)) from error


def _matches(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(hash_file(path / name) == entry["sha256"] for name, entry in entries.items())


def _set_aside(folder: Path, path: Path) -> str:
    quarantine = folder / "quarantine"
    quarantine.mkdir(exist_ok=True)
    target, number = quarantine / path.name, 1
    while target.exists():
        number += 1
        target = quarantine / f"{path.name}-{number}"
    path.rename(target)
    return target.name


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[torch.nn.Parameter, str]) -> Tensors:
    """The optimizer's state as named tensors; a whole number becomes one of no dimension."""
    return {
        # Tables that all weights share are written with each: a file of tensors has none that share memory.
        f"{names[parameter]}|{key}": value.clone() if key.startswith("qmap") else torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter], tensors: Tensors
) -> None:
    """The inverse of `optimizer_tensors`. Raises `KeyError` for a parameter that is not there."""
    for key, value in tensors.items():
        name, _, slot = key.rpartition("|")
        parameter = parameters[name]
        if value.ndim == 0 and value.dtype == torch.int64:
            optimizer.state[parameter][slot] = value.item()
        elif value.shape == parameter.shape:
            # Laid out in memory as the weight is: optimizers walk over both.
            optimizer.state[parameter][slot] = torch.empty_like(parameter, dtype=value.dtype)
            local(optimizer.state[parameter][slot]).copy_(local(shared_out(value, parameter)))
        else:
            optimizer.state[parameter][slot] = value.to(parameter.device)
