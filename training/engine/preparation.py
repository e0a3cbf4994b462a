"""Everything that a run needs before its first step: its images, its parent, its cache and its learner, checked and loaded."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from generation.engine.folders import Manifest
from generation.engine.pipeline import Pipeline
from generation.engine.waiting import heed_machine
from training.engine import trackers
from training.engine.bands import Schedule, report_regions
from training.engine.batches import process_of
from training.engine.board import Board
from training.engine.cache import Encoded, encode_sources
from training.engine.corpora import read_corpus
from training.engine.disk_room import bytes_to_spare, check_disk, make_disk_room
from training.engine.draws import Mixture
from training.engine.group import Group
from training.engine.holdout import Split, split_sources
from training.engine.learner import Learner, make_learner
from training.engine.manifests import Item, read_manifest
from training.engine.parents import open_parent, schedule_of, shape_rule_of, trained_network
from training.engine.places import place_of
from training.engine.recipe import RunSettings, Source
from training.engine.resuming import digest_of
from training.engine.run import Run, Stopped
from training.engine.run_files import RunFiles
from training.engine.shapes import shapes_of
from training.engine.trackers import Trackers
from training.engine.transparency import check_alpha
from training.engine.validation import make_decoder_grid, make_grid
from training.engine.writer import Writer

# "off" where a rehearsal measures what drawing an image for the first time takes.
DRAWN_VARIABLE = "ATELIER_DRAWN_CACHE"


@dataclass(frozen=True)
class Report:
    """Says how far the preparation is, and ends it once somebody wants the run to stop."""

    files: RunFiles
    stop: Callable[[], bool]

    def caching(self, done: int, total: int) -> None:
        self._say("caching", done, total)

    def checking(self, done: int, total: int) -> None:
        self._say("checking", done, total)

    def checking_bytes(self, done: int, total: int) -> None:
        self._say("checking", done // 10**6, total // 10**6)

    def _say(self, phase: str, done: int, total: int) -> None:
        self.files.progress(phase=phase, done=done, total=total)
        if self.stop():
            self.files.event("stopped", 0)
            raise Stopped


def prepare(folder: Path, settings: RunSettings, stop: Callable[[], bool], group: Group) -> Run:
    """Check and load everything that the loop needs."""
    files = RunFiles(folder, settings.steps, writes=group.is_main)
    files.progress(phase="loading", now=True)
    report = Report(files, stop)
    sources = [read_source(folder, source, settings, report.checking_bytes) for source in settings.sources]
    splits = split_sources(sources, settings.holdout)
    pipeline, parent_manifest = open_parent(folder, settings, group)
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
        heed_machine(settings.num_threads)
    schedule = schedule_of(pipeline, settings)
    mixture = _mixture_of(schedule, settings, splits)
    learner = make_learner(trained_network(pipeline, settings), settings, group.mesh)
    check_disk(folder, settings, learner)
    if settings.trains_decoder:
        check_alpha(settings.sources, sources, report.checking)
    encoded = _encode(folder, settings, pipeline, parent_manifest, splits, learner, report)
    make = make_decoder_grid if settings.trains_decoder else make_grid
    return Run(
        folder=folder,
        settings=settings,
        stop=stop,
        files=files,
        pipeline=pipeline,
        schedule=schedule,
        encoded=encoded,
        items=tuple(split.items for split in splits),
        mixture=mixture,
        diffusion=process_of(schedule, pipeline.device, settings),
        regions=report_regions(schedule, settings.sources),
        grid=make(schedule, settings.sources, splits),
        learner=learner,
        digest=digest_of(settings, sources),
        board=Board(folder),
        trackers=Trackers(files, trackers.configured(folder) if group.is_main else [], settings),
        group=group,
        writer=Writer(),
    )


def read_source(
    folder: Path, source: Source, settings: RunSettings, report: Callable[[int, int], None]
) -> Sequence[Item]:
    """The images of a row, from its manifest or, of a corpus, from its index."""
    if source.corpus:
        index, shards = folder / source.manifest, place_of(folder, source.corpus)
        return read_corpus(index, shards, source.corpus_hash, report, prompt_free=source.prompt_free)
    manifest = folder / source.manifest
    return read_manifest(manifest, pairs=settings.objective == "dpo", prompt_free=source.prompt_free)


def _mixture_of(schedule: Schedule, settings: RunSettings, splits: Sequence[Split]) -> Mixture:
    """The run's draws, of the images that it trains on."""
    return Mixture(
        schedule,
        settings.sources,
        tuple(split.trained for split in splits),
        seed=settings.seed,
        mode=settings.mixture,
        importance_weights=settings.importance_weights,
        caption_dropout=settings.caption_dropout,
        image_draws=settings.image_draws,
        images_per_step=settings.images_per_step,
    )


def _encode(
    folder: Path,
    settings: RunSettings,
    pipeline: Pipeline,
    parent_manifest: Manifest,
    splits: Sequence[Split],
    learner: Learner,
    report: Report,
) -> Encoded:
    """The latents and captions of all images, in the shapes of the run."""
    items = [split.items for split in splits]
    return encode_sources(
        pipeline,
        parent_manifest,
        items,
        folder / settings.cache_dir,
        report.caching,
        with_captions=not settings.trains_decoder,
        shapes=shapes_of(items, shape_rule_of(pipeline, settings), report.checking),
        corpus_bytes=settings.corpus_cache_gib * 2**30,
        keeps_drawn=os.environ.get(DRAWN_VARIABLE) != "off",
        check_room=lambda missing: make_disk_room(folder, settings, learner, missing),
        # What is made on demand is kept as far as there is room, which its checkpoints must find too.
        spare_bytes=lambda: bytes_to_spare(folder, settings, learner),
    )
