"""The model that a run begins with: its files, its noise levels, and which part of it is trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from generation.engine.folders import Manifest, hash_folder
from generation.engine.pipeline import Pipeline, load_pipeline
from training.engine.bands import Schedule
from training.engine.group import Group
from training.engine.recipe import RunRefused, RunSettings
from training.engine.schedules import misplaced_setting, read_schedule
from training.engine.shapes import ShapeRule
from training.engine.transparency import grow_alpha


def open_parent(folder: Path, settings: RunSettings, group: Group) -> tuple[Pipeline, Manifest]:
    """The parent, loaded, and its files. Raises `RunRefused` where they are not those of its hash, or the device is missing."""
    parent_hash, manifest = hash_folder(folder / settings.parent)
    if parent_hash != settings.parent_hash:
        raise RunRefused("The parent's files are not those of its content hash.", field="parent_hash")
    try:
        return load_parent(folder, settings, group), manifest
    except ValueError as error:
        raise RunRefused("The run asks for a GPU, but this machine has none.", field="device", retry=True) from error


def load_parent(folder: Path, settings: RunSettings, group: Group) -> Pipeline:
    """The parent in float32, with a fourth channel in its decoder where that is what the run trains. Where its weights
    will lie in shards, the denoiser waits on the CPU: no GPU has to hold all of it."""
    pipeline = load_pipeline(folder / settings.parent, settings.device, "float32", denoiser_on_cpu=group.is_sharded)
    if not settings.trains_decoder:
        return pipeline
    grow_alpha(pipeline.pipe.vae)
    return replace(pipeline, report=replace(pipeline.report, has_alpha=True))


def trained_network(pipeline: Pipeline, settings: RunSettings) -> Any:
    """The part of the parent that the run trains."""
    return pipeline.pipe.vae if settings.trains_decoder else pipeline.denoiser


def schedule_of(pipeline: Pipeline, settings: RunSettings) -> Schedule:
    """The parent's noise levels, drawn as the run says. Raises `RunRefused` for settings that are not of its kind."""
    values = settings.as_json()
    said = pipeline.report
    schedule = read_schedule(said.scheduler_config, said.image_tokens, said.pipeline).sampled(values)
    field, sentence = misplaced_setting(values, schedule)
    if field:
        raise RunRefused(sentence, field=field)
    return schedule


def shape_rule_of(pipeline: Pipeline, settings: RunSettings) -> ShapeRule:
    """Which shapes the run's images get."""
    report = pipeline.report
    return ShapeRule.of(settings.as_json(), report.resolution, report.shape_step, report.largest_side)
