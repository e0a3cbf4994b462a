"""The training loop. `run_training(folder, stop)` reads `folder`/run.json and leaves `folder`/result.

A run is a pure function of its settings, its manifests and its parent: step s draws the same examples whenever it is
trained (see `draws`), and a checkpoint holds everything else. So a run that was killed anywhere ends with the same
bits as one that was not, on the same kind of machine with the same number of threads.
"""

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from generation.engine.folders import Manifest, hash_folder
from generation.engine.pipeline import Pipeline, load_pipeline
from training.engine import trackers
from training.engine.bands import Schedule, report_regions
from training.engine.batches import process_of
from training.engine.board import Board
from training.engine.cache import encode_sources
from training.engine.checkpoints import (
    Checkpoint,
    checkpoint_name,
    clear_leftovers,
    discard_beyond,
    list_checkpoints,
    load_newest,
    save_checkpoint,
)
from training.engine.corpora import read_corpus
from training.engine.draws import Mixture
from training.engine.explosions import EXPLOSION_STEPS, ExplosionWatch
from training.engine.flows import FLOW_DEFAULTS
from training.engine.group import Group, join_group
from training.engine.holdout import split_sources
from training.engine.kernels import choose_kernels, use_way
from training.engine.learner import (
    SKIP_WINDOW,
    Learner,
    gather_snapshot,
    learning_rate_of,
    low_rank_weights,
    make_learner,
    merged_weights,
    restore,
    updates_of,
)
from training.engine.manifests import Item, read_manifest
from training.engine.memory import peak_memory
from training.engine.observation import observe
from training.engine.optimizers import moment_bytes
from training.engine.recipe import SHAPE_DEFAULTS, RunRefused, RunSettings, Source, load_run
from training.engine.result import Diverged, publish_result
from training.engine.run import Run
from training.engine.run_files import RunFiles, read_lines, write_json
from training.engine.schedules import misplaced_setting, read_schedule
from training.engine.shapes import ShapeRule, shapes_of
from training.engine.steps import provide_step, train_step
from training.engine.trackers import Trackers
from training.engine.transparency import ENCODER_PARTS, check_alpha, grow_alpha
from training.engine.validation import make_decoder_grid, make_grid
from training.engine.writer import NoRoom, Writer

# Steps without a finite loss, in a row or of the last `SKIP_WINDOW`, that a run bears before it goes back to a checkpoint,
# and times of going back before it counts as diverged.
MAX_SKIPPED = 5
MAX_SKIPPED_LATELY = SKIP_WINDOW // 2
MAX_ROLLBACKS = 2
RATE_WINDOW = 20
# "off" where a rehearsal measures what drawing an image for the first time takes.
DRAWN_VARIABLE = "ATELIER_DRAWN_CACHE"
# What may change between the attempts of one run without changing its weights.
FREE_SETTINGS = {
    "parent",
    "cache_dir",
    "corpus_cache_gib",
    "device",
    "num_threads",
    "checkpoint_every",
    "keep_checkpoints",
    "validate_every",
    "sample_every",
    "sample_prompts",
    "sample_steps",
    "sample_guidance",
    "sharded",
}
# What older runs did without, and the value that is the same as without: they may be continued.
LATER_SETTINGS = {
    "noise_offset": 0.0,
    "holdout": 0.0,
    "objective": "denoise",
    "dpo_beta": 2000.0,
    "gradient_checkpointing": False,
    "kernels": "auto",
    "colour_weight": 1.0,
    "alpha_weight": 1.0,
    "backgrounds": 1,
    "image_draws": "replacement",
    **FLOW_DEFAULTS,
    **SHAPE_DEFAULTS,
}


class Stopped(Exception):
    """A cancel or SIGTERM; all that was learned is in a checkpoint."""


def run_training(folder: Path, stop: Callable[[], bool] = lambda: False) -> None:
    """Train the run in `folder` to its end, from its newest checkpoint if it has one.

    Raises `Stopped` when `stop()` became true, `RunRefused` for a run that cannot be trained, `Diverged` (a
    `RunRefused`) when losses stopped being finite. A run with a result.json is done and left alone.
    """
    if (folder / "result.json").exists():
        return
    started = time.monotonic()
    settings = load_run(folder / "run.json")
    with join_group(settings.device, sharded=settings.sharded) as group:
        if settings.images_per_step < group.size:
            raise RunRefused(f"{group.size} processes cannot share a step of {settings.images_per_step} images.")
        with group.main_first():
            if group.is_main:
                clear_leftovers(folder)
            run = prepare(folder, settings, stop, group)
            resume(run)
        _say_what_is_on_demand(run)
        _say_what_was_damaged(run)
        choose_kernels(run)
        if group.is_main:
            run.board.begin(run.learner.step)
            run.trackers.begin()
        try:
            _loop(run)
            run.board.close()
            if group.is_main:
                _finish(run, started)
        except BaseException as ended:
            run.trackers.close(trackers.STOPPED if isinstance(ended, Stopped) else trackers.FAILED)
            raise
        finally:
            # However a run ends, what it had begun to save is saved.
            run.writer.close()
            run.board.close()
            run.encoded.close()


def prepare(folder: Path, settings: RunSettings, stop: Callable[[], bool], group: Group) -> Run:
    """Check and load everything that the loop needs."""
    files = RunFiles(folder, settings.steps, writes=group.is_main)
    files.progress(phase="loading", now=True)

    def report(done: int, total: int, phase: str = "caching") -> None:
        files.progress(phase=phase, done=done, total=total)
        if stop():
            files.event("stopped", 0)
            raise Stopped

    sources = [
        read_source(folder, source, settings, lambda done, total: report(done // 10**6, total // 10**6, "checking"))
        for source in settings.sources
    ]
    splits = split_sources(sources, settings.holdout)
    pipeline, parent_manifest = open_parent(folder, settings, group)
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    schedule = schedule_of(pipeline, settings)
    mixture = Mixture(
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

    learner = make_learner(trained_network(pipeline, settings), settings, group.mesh)
    check_disk(folder, settings, learner)
    if settings.trains_decoder:
        check_alpha(settings.sources, sources, lambda done, total: report(done, total, "checking"))
    shapes = shapes_of(
        [split.items for split in splits],
        shape_rule_of(pipeline, settings),
        lambda done, total: report(done, total, "checking"),
    )
    encoded = encode_sources(
        pipeline,
        parent_manifest,
        [split.items for split in splits],
        folder / settings.cache_dir,
        report,
        with_captions=not settings.trains_decoder,
        shapes=shapes,
        corpus_bytes=settings.corpus_cache_gib * 2**30,
        keeps_drawn=os.environ.get(DRAWN_VARIABLE) != "off",
        check_room=lambda missing: check_disk(folder, settings, learner, missing),
        # What is made on demand is kept as far as there is room, which its checkpoints must find too.
        spare_bytes=lambda: needed_bytes(folder, settings, learner) if _shares_disk(folder, settings) else 0,
    )
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
        index, shards = folder / source.manifest, folder / source.corpus
        return read_corpus(index, shards, source.corpus_hash, report, prompt_free=source.prompt_free)
    manifest = folder / source.manifest
    return read_manifest(manifest, pairs=settings.objective == "dpo", prompt_free=source.prompt_free)


def open_parent(folder: Path, settings: RunSettings, group: Group) -> tuple[Pipeline, Manifest]:
    """The parent, loaded, and its files. Raises `RunRefused` where they are not those of its hash, or the device is missing."""
    parent_hash, manifest = hash_folder(folder / settings.parent)
    if parent_hash != settings.parent_hash:
        raise RunRefused("The parent's files are not those of its content hash.", field="parent_hash")
    try:
        return load_parent(folder, settings, group), manifest
    except ValueError as error:
        raise RunRefused("The run asks for a GPU, but this machine has none.", field="device", retry=True) from error


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


def check_disk(folder: Path, settings: RunSettings, learner: Learner, cache: int = 0) -> None:
    """Raise `RunRefused`, to be tried again, where the disk has no room for the checkpoints and the result, and for so many
    bytes that the cache is still without, which may lie on another disk."""
    needed = needed_bytes(folder, settings, learner)
    free = shutil.disk_usage(folder).free
    missing = "the latents and texts that are not in the cache yet need"
    if cache and not _shares_disk(folder, settings):
        left = shutil.disk_usage(folder / settings.cache_dir).free
        if left < cache:
            raise RunRefused(
                f"The cache's disk has {_gigabytes(left)} free; {missing} {_gigabytes(cache)}.", retry=True
            )
        cache = 0
    if free < needed + cache:
        said = f"The disk has {_gigabytes(free)} free; the run's checkpoints and result need {_gigabytes(needed)}"
        raise RunRefused(f"{said}, and {missing} {_gigabytes(cache)}." if cache else f"{said}.", retry=True)


def needed_bytes(folder: Path, settings: RunSettings, learner: Learner) -> int:
    """What the run's checkpoints and result will take, besides the checkpoints that are there."""
    weights = sum(each.numel() for each in learner.parameters.values())
    moments = sum(moment_bytes(settings.optimizer, each.shape) for each in learner.parameters.values())
    # Weights, the optimizer's moments, and the average; a new checkpoint is whole before an old one goes.
    checkpoint = 4 * weights * (1 + (learner.ema is not None)) + moments
    kept = sum(each.stat().st_size for each in folder.glob("checkpoints/*/*"))
    result = sum(each.stat().st_size for each in (folder / settings.parent).rglob("*") if each.is_file())
    return checkpoint * (settings.keep_checkpoints + 1) + result - kept


def _shares_disk(folder: Path, settings: RunSettings) -> bool:
    """Whether the cache lies on the disk of the run's folder."""
    return (folder / settings.cache_dir).stat().st_dev == folder.stat().st_dev


def _gigabytes(size: int) -> str:
    return f"{max(0, size) / 1e9:.1f} GB"


def digest_of(settings: RunSettings, sources: Sequence[Sequence[Item]]) -> str:
    """A hash of all that decides the weights: a checkpoint of other settings is never continued."""
    deciding = {
        key: value
        for key, value in settings.as_json().items()
        if key not in FREE_SETTINGS and LATER_SETTINGS.get(key, ...) != value
    }
    for row, items in zip(deciding["sources"], sources, strict=True):
        # Where a corpus lies decides nothing; its hash is that of its images and captions.
        corpus, corpus_hash = row.pop("corpus"), row.pop("corpus_hash")
        if not row["prompt_free"]:
            del row["prompt_free"]
        if corpus:
            row["manifest"] = {"corpus": corpus_hash}
            continue
        row["manifest"] = [
            [item.sha256, item.caption, *([item.rejected_sha256] if item.rejected else [])] for item in items
        ]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _machine(run: Run) -> dict[str, Any]:
    """What the last bits of a sum depend on."""
    return {
        "torch": torch.__version__,
        "device": str(run.pipeline.device),
        "threads": torch.get_num_threads(),
        "processes": run.group.size,
        **({"sharded": True} if run.group.is_sharded else {}),
    }


def resume(run: Run) -> None:
    """Continue from the newest whole checkpoint, or begin; never begin again silently."""
    files = run.files
    checkpoint, damaged = load_newest(run.folder)
    for name in damaged:
        files.event("quarantined", checkpoint.step if checkpoint else 0, checkpoint=name)
    if checkpoint is None:
        if damaged or files.events("checkpoint") or any((run.folder / "quarantine").glob("*")):
            raise RunRefused("The run had saved checkpoints, but none of them is whole; it cannot be continued.")
        again = any(line.get("kind") != "started_over" for line in files.events())
        files.rewind(0)
        files.event("restarted" if again else "started", 0, **_machine(run))
        return
    if checkpoint.state.get("digest") != run.digest:
        raise RunRefused("The run's settings or images changed since its checkpoint; it cannot be continued.")
    restore(run.learner, checkpoint)
    files.rewind(checkpoint.step)
    exact = checkpoint.state.get("machine") == _machine(run)
    files.event("resumed", checkpoint.step, exact=exact, **_machine(run))
    if not files.happened("checkpoint", checkpoint.step):
        files.event("checkpoint", checkpoint.step, checkpoint=checkpoint_name(checkpoint.step))


def _say_what_is_on_demand(run: Run) -> None:
    on_demand = run.encoded.on_demand
    if on_demand is None or run.files.events("on_demand"):
        return
    names = [run.settings.sources[number].name for number in sorted(on_demand.sources)]
    images = sum(len(run.items[number]) for number in on_demand.sources)
    run.files.event("on_demand", run.learner.step, sources=names, images=images)


def _say_what_was_damaged(run: Run) -> None:
    damaged = [name for name in run.encoded.damaged if name not in run.damage_said]
    if damaged:
        run.files.event("cache_damaged", run.learner.step, files=damaged)
        run.damage_said.update(damaged)


def _loop(run: Run) -> None:
    settings = run.settings
    run.learner.network.train()
    seconds: deque[float] = deque(maxlen=RATE_WINDOW)
    watch = ExplosionWatch(read_lines(run.files.metrics_path))
    while True:
        run.writer.check()
        if run.group.is_main or run.group.is_sharded:
            # Where it goes alone, the others wait for it at the step's first exchange.
            observe(run)
        if run.group.agree(run.stop()):
            _stop(run)
        if run.learner.step >= settings.steps:
            run.writer.wait()
            return
        started = time.monotonic()
        try:
            provide_step(run)
        except RunRefused:
            # What was learned until an image was found damaged is not lost.
            _save_if_new(run)
            raise
        _say_what_was_damaged(run)
        line = train_step(run)
        learner = run.learner
        seconds.append(time.monotonic() - started)
        rate = settings.images_per_step * len(seconds) / sum(seconds)
        memory = peak_memory(run.pipeline.device)
        metric = {**line, "images_per_second": rate, "seconds": seconds[-1], "memory_bytes": memory}
        run.board.metric(metric)
        run.trackers.metric(metric)
        run.files.metric(metric)
        _warn_of_explosion(run, watch, metric)
        left = settings.steps - learner.step
        run.files.progress(
            phase="training",
            step=learner.step,
            loss=line["loss"],
            images_per_second=rate,
            eta_seconds=left * settings.images_per_step / rate,
        )
        if learner.skipped_in_row > MAX_SKIPPED or len(learner.skipped_lately) > MAX_SKIPPED_LATELY:
            _roll_back(run)
            watch = ExplosionWatch(read_lines(run.files.metrics_path))
        elif learner.step % settings.checkpoint_every == 0 or learner.step == settings.steps:
            save(run)


def _warn_of_explosion(run: Run, watch: ExplosionWatch, metric: dict[str, Any]) -> None:
    """One event where losses or gradients are still finite, but far beyond what they were."""
    seen = watch.look(metric)
    if seen is not None and not run.files.events("explosion"):
        run.files.event("explosion", run.learner.step, figure=seen.figure, times=seen.times, steps=EXPLOSION_STEPS)


def _roll_back(run: Run) -> None:
    """Go back to the last checkpoint, or to the parent where there is none yet, with half the learning rate. Where the last
    one, or one with the same weights, led here before, to the one before it, as long as there is one.

    Raises `Diverged` where that was done `MAX_ROLLBACKS` times already.
    """
    learner = run.learner
    if learner.rollbacks >= MAX_ROLLBACKS:
        raise Diverged(
            f"The training diverged: {MAX_SKIPPED + 1} steps in a row, or more than half of {SKIP_WINDOW}, had no finite loss, "
            f"also after going back {MAX_ROLLBACKS} times with half the learning rate."
        )
    failed, rollbacks = learner.step, learner.rollbacks + 1
    run.writer.wait()
    with run.group.main_first():
        checkpoint, damaged = load_newest(run.folder, lambda state: updates_of(state) != learner.went_back_to)
        if checkpoint is None:
            checkpoint, more = load_newest(run.folder)
            damaged += more
    # Before the main process writes the same checkpoint again, all have read it.
    run.group.wait()
    for name in damaged:
        run.files.event("quarantined", failed, checkpoint=name)
    if checkpoint is None and damaged:
        raise RunRefused("The run's losses are not finite, and none of its checkpoints is whole; it cannot go back.")
    if checkpoint is None:
        # A fresh learner's weights are the parent's: nothing else of the run has to be prepared again. The old ones make
        # room for them first.
        learner.optimizer.state.clear()
        run.pipeline.pipe.to("cpu")
        run.pipeline = load_parent(run.folder, run.settings, run.group)
        run.encoded.use(run.pipeline)
        run.learner = make_learner(trained_network(run.pipeline, run.settings), run.settings, run.group.mesh)
        use_way(run, run.way)
        run.learner.network.train()
    else:
        run.learner = _relearn(run, checkpoint)
    run.learner.rollbacks, run.learner.went_back_to = rollbacks, run.learner.updates
    run.files.rewind(run.learner.step)
    if run.group.is_main:
        run.board.begin(run.learner.step)
    run.files.event("rolled_back", failed, to=run.learner.step, rate=learning_rate_of(run.learner))
    # What a killed run goes on from must know of it.
    if run.learner.step:
        save(run)
        run.writer.wait()
    if run.group.is_main:
        # They led here. Only now: a run that is killed before goes on from them, and comes here again.
        discard_beyond(run.folder, run.learner.step)


def _relearn(run: Run, checkpoint: Checkpoint) -> Learner:
    """The run's learner as the checkpoint has it, with an optimizer that remembers nothing since."""
    learner, micro_batch = run.learner, run.learner.micro_batch
    learner.optimizer.state.clear()
    restore(learner, checkpoint)
    learner.skipped_in_row, learner.skipped_lately = 0, []
    learner.micro_batch = min(micro_batch, learner.micro_batch)
    return learner


def save(run: Run) -> None:
    """Have a checkpoint published while the next steps train; where memory has no room for a copy of it, at once. In
    shards all processes give their part of it. Raises what went wrong with the one before."""
    run.writer.wait()
    state = gather_snapshot(run.learner, run.group, digest=run.digest, machine=_machine(run))
    if state is None:
        return
    run.board.flush()
    try:
        copy = state if run.group.is_sharded else run.writer.copy(state)
    except NoRoom as short:
        if not run.files.events("no_room"):
            run.files.event("no_room", state.step, needed=short.needed, free=short.free)
        _publish(run, state)
        return
    run.writer.begin(lambda: _publish(run, copy))


def _publish(run: Run, state: Checkpoint) -> None:
    run.files.sync_lines()
    path = save_checkpoint(run.folder, state, run.settings.keep_checkpoints)
    # After a rollback the same step is saved once more.
    if not run.files.happened("checkpoint", state.step):
        run.files.event("checkpoint", state.step, checkpoint=path.name)


def _save_if_new(run: Run) -> None:
    run.writer.wait()
    saved = {path.name for path in list_checkpoints(run.folder)}
    if run.group.agree(run.learner.step > 0 and checkpoint_name(run.learner.step) not in saved):
        save(run)
        run.writer.wait()


def _stop(run: Run) -> None:
    _save_if_new(run)
    run.files.event("stopped", run.learner.step)
    run.files.progress(phase="stopped", step=run.learner.step, now=True)
    raise Stopped


def _whole_learner(run: Run) -> Learner:
    """The learner of the last checkpoint on the CPU, where all of it has room: for one process alone."""
    pipeline = load_pipeline(run.folder / run.settings.parent, "cpu", "float32")
    learner = make_learner(trained_network(pipeline, run.settings), run.settings)
    checkpoint, _ = load_newest(run.folder)
    if checkpoint is None or checkpoint.step != run.learner.step:
        raise RunRefused("The run's last checkpoint is not whole: start it again, and it goes on from the one before.")
    restore(learner, checkpoint)
    return learner


def _finish(run: Run, started: float) -> None:
    files, learner = run.files, _whole_learner(run) if run.group.is_sharded else run.learner
    files.progress(phase="publishing", step=learner.step, now=True)
    validations = files.events("validation")
    low_rank = low_rank_weights(learner)  # Merging takes them apart.
    weights, parent = merged_weights(learner), run.folder / run.settings.parent
    if run.settings.trains_decoder:
        content_hash = publish_result(run.folder, parent, weights, part="vae", kept=ENCODER_PARTS, has_alpha=True)
    else:
        content_hash = publish_result(run.folder, parent, weights, low_rank, part=run.pipeline.report.denoiser)
    if not files.happened("finished", learner.step):
        files.event("finished", learner.step, content_hash=content_hash)
    final = {"loss": learner.final_loss, "validation_loss": validations[-1].get("loss") if validations else None}
    run.trackers.close(trackers.FINISHED, {**final, "steps": learner.step})
    files.progress(phase="done", step=learner.step, eta_seconds=0, now=True)
    write_json(
        run.folder / "result.json",
        {
            "content_hash": content_hash,
            "parent_hash": run.settings.parent_hash,
            "steps": learner.step,
            "final_loss": learner.final_loss,
            "validation": validations[-1] if validations else None,
            "weights": "ema" if run.settings.ema_decay is not None else "live",
            "method": run.settings.method,
            "attempt_seconds": time.monotonic() - started,
        },
    )
