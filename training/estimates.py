"""What a run would take, before it is started: time, memory and disk, from sizes that are known and runs that were measured.

Nothing here is guessed. Weights, gradients, moments and averages are counted from the parent's files. Activations, and what
the program itself holds, are known only where a run on a model of this size was measured: its peak less what is counted.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from django.conf import settings
from django.db.models import Count, Q, Sum

from curation.models import DatasetEntry
from generation.engine.families import FLUX
from generation.engine.safetensors_headers import HeaderRefused, TensorInfo, read_header
from generation.models import ModelVersion
from jobs.models import Job, JobState
from jobs.workers import live_workers
from training import rehearsals
from training.cadence import OF_CADENCE, keeps
from training.engine.optimizers import moment_bytes
from training.engine.recipe import CACHED_FIRST, LORA_TARGETS, RunSettings
from training.models import Corpus, Recipe, RecipeSource, RunMetric, TrainingRun
from training.processes import process_count
from training.recipes import chain_of, hyperparameters_of
from training.runs import RECENT_RUNS, images_per_step

FLOAT = 4
# What decides how much a run holds, besides the images of a pass, and what it is where a recipe leaves it open.
HELD = {
    each.name: each.default
    for each in fields(RunSettings)
    if each.name
    in (
        "method",
        "lora_rank",
        "objective",
        "gradient_checkpointing",
        "precision",
        "ema_decay",
        "optimizer",
        "shapes",
        "sharded",
    )
}


@dataclass(frozen=True)
class Memory:
    """Bytes of a run on its device. `activations` are those of a pass with what the program itself holds, None where no
    run on a model of this size was measured; `gradients` and the rest are None where the parent's files are not here."""

    weights: int
    gradients: int | None
    moments: int | None
    average: int | None
    activations: int | None

    @property
    def counted(self) -> int:
        """What is known without a measurement."""
        return self.weights + sum(part or 0 for part in (self.gradients, self.moments, self.average))

    @property
    def total(self) -> int | None:
        return None if self.activations is None else self.counted + self.activations


@dataclass(frozen=True)
class Estimate:
    """What a run of a recipe's chain would take. `seconds` is None where neither a rehearsal nor an earlier run on a model
    of this size was measured; `runs` counts the runs. Bytes on disk are of two checkpoints of one run, None where unknown,
    and of all results. `rehearsed` is the rehearsal of just this, `largest_device` the memory of the largest live worker
    that trains, 0 where none is known."""

    images: int
    seconds: float | None
    images_per_second: float | None
    runs: int
    checkpoint_bytes: int | None
    result_bytes: int
    stages: int
    memory: Memory
    rehearsed: rehearsals.Rehearsed | None
    largest_device: int
    # The images of the corpora of one run, and the GiB that their latents and captions may take.
    corpus_images: int
    corpus_cache_gib: int
    # Processes that train a run together: memory is that of each.
    processes: int
    is_sharded: bool
    # Checkpoints of one run that stay.
    kept: int
    # What the latents and captions of all its runs take where none is cached yet; None where the parent does not say.
    cache_bytes: int | None

    @property
    def memory_bytes(self) -> int | None:
        """The most that is held: measured by a rehearsal, or reckoned."""
        return self.rehearsed.memory_bytes if self.rehearsed else self.memory.total

    @property
    def is_on_demand(self) -> bool:
        """Whether the corpora have so many images that none is encoded before it is drawn, whatever a latent takes."""
        return self.corpus_images > CACHED_FIRST or (self.corpus_images > 0 and not self.corpus_cache_gib)

    @property
    def copy_bytes(self) -> int | None:
        """What a copy of a checkpoint takes of the machine's memory while it is written, beside all else. Where that is
        not free a run does without, so that it makes none too large."""
        return None if self.checkpoint_bytes is None else self.checkpoint_bytes // 2

    @property
    def kept_bytes(self) -> int | None:
        """What the checkpoints that a run keeps take on disk."""
        return None if self.copy_bytes is None else self.kept * self.copy_bytes

    @property
    def is_too_large(self) -> bool:
        """Whether no worker at hand has so much memory."""
        return 0 < self.largest_device < (self.memory_bytes or self.memory.counted)


def estimate(recipe: Recipe, parent: ModelVersion, *, overrides: Mapping[str, Any] | None = None) -> Estimate:
    """Time, memory and disk of a run of the recipe's whole chain, with the steps and the like that the run changes.

    The time is that of the rehearsal, or else of the steps by the median speed of the last runs by the same method on
    models of the same size: caching, validation, samples and checkpoints come on top.
    """
    changed = {key: value for key, value in (overrides or {}).items() if value is not None}
    chain = chain_of(recipe)
    stages = [{**hyperparameters_of(each), **changed} for each in chain]
    images = sum(int(values["steps"]) * images_per_step(values) for values in stages)
    values = stages[0]
    rehearsed = _rehearsed(recipe, parent, values)
    rates = [rehearsed.images_per_second] if rehearsed else measured_rates(parent, values)
    rate = statistics.median(rates) if rates else None
    memory = _memory(parent, values)
    return Estimate(
        images=images,
        seconds=images / rate if rate else None,
        images_per_second=rate,
        runs=0 if rehearsed else len(rates),
        checkpoint_bytes=rehearsed.checkpoint_bytes if rehearsed else _checkpoint_bytes(memory, _parts(values)),
        result_bytes=parent.byte_size * len(chain),
        stages=len(chain),
        memory=memory,
        rehearsed=rehearsed,
        largest_device=_largest_device(),
        corpus_images=max(_corpus_images(each) for each in chain),
        corpus_cache_gib=settings.CORPUS_CACHE_GIB,
        processes=process_count(values),
        is_sharded=bool(values.get("sharded")),
        kept=keeps(values),
        cache_bytes=_cache_bytes(chain, parent, with_captions=values.get("objective") != "alpha"),
    )


def _corpus_images(recipe: Recipe) -> int:
    return int(recipe.sources.aggregate(images=Sum("corpus__entry_count"))["images"] or 0)


def _cache_bytes(chain: Sequence[Recipe], parent: ModelVersion, *, with_captions: bool) -> int | None:
    """Each image once, as large as the model's square, and each caption once. Of corpora no more than they may take: what
    is drawn of larger ones is kept as far as that goes."""
    config = parent.config
    if not {"latent_channels", "latent_size", "text_width", "max_tokens"} <= config.keys():
        return None
    latent = 2 * FLOAT * int(config["latent_channels"]) * int(config["latent_size"]) ** 2
    tokens = int(config.get("t5_tokens") or 0)
    if config.get("pipeline") != FLUX.pipeline:
        tokens += int(config["max_tokens"])
    text = FLOAT * tokens * int(config["text_width"]) if with_captions else 0
    sources = RecipeSource.objects.filter(recipe__in=[each.pk for each in chain])
    entries = DatasetEntry.objects.filter(version__in=sources.exclude(dataset_version=None).values("dataset_version"))
    counts = entries.aggregate(
        chosen=Count("image", distinct=True),
        rejected=Count("rejected_image", distinct=True, filter=~Q(rejected_image="")),
        captions=Count("caption", distinct=True),
    )
    corpora = Corpus.objects.filter(pk__in=sources.exclude(corpus=None).values("corpus"))
    of_corpora = (latent + text) * int(corpora.aggregate(images=Sum("entry_count"))["images"] or 0)
    own = latent * (counts["chosen"] + counts["rejected"]) + text * counts["captions"]
    return int(own + min(of_corpora, settings.CORPUS_CACHE_GIB * 2**30))


def measured_rates(parent: ModelVersion, values: Mapping[str, Any]) -> list[float]:
    """Images a second of the last five finished runs by the method on models as large as this one; a decoder's say
    nothing of a denoiser's, nor passes of squares of those that are parted by shape."""
    of_decoders = Q(spec__contains={"objective": "alpha"})
    alike = of_decoders if values.get("objective") == "alpha" else ~of_decoders
    in_shapes = Q(spec__contains={"shapes": "aspect"})
    alike &= in_shapes if values.get("shapes") == "aspect" else ~in_shapes
    recent = _finished(parent).filter(alike, spec__method=values["method"])[:RECENT_RUNS]
    recent = [run for run in recent if _processes_of(run) == process_count(values)]
    # The last step's figure is the mean over its attempt.
    last = RunMetric.objects.filter(run__in=recent).order_by("run_id", "-step").distinct("run_id")
    return [float(rate) for rate in last.values_list("values__images_per_second", flat=True) if rate]


def _processes_of(run: TrainingRun) -> int:
    """How many processes trained the run at last."""
    begun = run.events.filter(kind__in=("started", "restarted", "resumed")).order_by("-position").first()
    return int(begun.detail.get("processes", 1)) if begun else 1


def _finished(parent: ModelVersion) -> Any:
    return TrainingRun.objects.filter(job__state=JobState.SUCCEEDED, parent__byte_size=parent.byte_size).order_by("-pk")


def _rehearsed(recipe: Recipe, parent: ModelVersion, values: Mapping[str, Any]) -> rehearsals.Rehearsed | None:
    """The last rehearsal of this recipe on this parent whose settings are the same but for what it does not measure."""
    done = Job.objects.filter(
        kind=rehearsals.KIND, state=JobState.SUCCEEDED, payload__recipe=recipe.pk, payload__parent=parent.pk
    )
    for job in done.order_by("-created_at")[:RECENT_RUNS]:
        spec = {**values, **job.payload["spec"]}
        if all(spec[key] == value for key, value in values.items() if key not in ("steps", "seed", *OF_CADENCE)):
            return rehearsals.rehearsed(job)
    return None


def _memory(parent: ModelVersion, values: Mapping[str, Any]) -> Memory:
    counts = {part: int(count) for part, count in parent.config.get("parameters", {}).items()}
    weights = FLOAT * sum(counts.values())
    if values.get("objective") == "dpo" and values["method"] == "full":
        weights += FLOAT * counts.get(parent.family.denoiser, 0)  # The parent, which the loss compares with.
    shapes = _trained_shapes(parent, values, counts)
    if shapes is None:
        return Memory(weights, None, None, None, None)
    trained = sum(math.prod(shape) for shape in shapes)
    if values["method"] != "full":
        weights += FLOAT * trained
    parts = _parts(values)
    if parts > 1:
        # What is in shards is a part of each; the text encoders and the VAE are whole on every device.
        in_shards = FLOAT * (counts.get(parent.family.denoiser, 0) + (trained if values["method"] != "full" else 0))
        weights -= in_shards - in_shards // parts
    memory = Memory(
        weights=weights,
        gradients=FLOAT * trained // parts,
        moments=sum(moment_bytes(values.get("optimizer", HELD["optimizer"]), shape) for shape in shapes) // parts,
        average=FLOAT * trained // parts if values.get("ema_decay") is not None else 0,
        activations=None,
    )
    return Memory(
        memory.weights, memory.gradients, memory.moments, memory.average, _rest(parent, values, memory.counted)
    )


def _rest(parent: ModelVersion, values: Mapping[str, Any], counted: int) -> int | None:
    """What the last like run on a model of this size held beyond what is counted; more in proportion for larger passes.

    A part of it does not grow with the pass, so that a larger pass is estimated too high rather than too low.
    """
    for run in _finished(parent)[:RECENT_RUNS]:
        if any(run.spec.get(key, default) != values.get(key, default) for key, default in HELD.items()):
            continue
        if _processes_of(run) != process_count(values):
            continue
        last = run.metrics.order_by("-step").first()
        peak = last.values.get("memory_bytes") if last else None
        if peak and peak > counted:
            larger = max(1.0, int(values["batch_size"]) / int(run.spec["batch_size"]))
            return math.ceil((int(peak) - counted) * larger)
    return None


def _trained_shapes(
    parent: ModelVersion, values: Mapping[str, Any], counts: Mapping[str, int]
) -> list[tuple[int, ...]] | None:
    """The shapes of what is trained; None where that takes the parent's files, and they are not on this machine."""
    decodes = values.get("objective") == "alpha"
    denoiser = parent.family.denoiser
    tensors = _tensors(parent, "vae" if decodes else denoiser)
    if tensors is None:
        is_counted = not decodes and values["method"] == "full" and denoiser in counts
        # AdamW remembers as much of each number, whatever the shapes.
        return [(counts[denoiser],)] if is_counted and values.get("optimizer", "adamw") == "adamw" else None
    if decodes:
        return [each.shape for name, each in tensors.items() if name.startswith(("decoder.", "post_quant_conv."))]
    if values["method"] == "full":
        return [each.shape for name, each in tensors.items() if name not in parent.family.fixed]
    rank = int(values.get("lora_rank", HELD["lora_rank"]))
    targets = tuple(f".{target}.weight" for target in LORA_TARGETS[parent.family.network])
    shapes: list[tuple[int, ...]] = []
    for outputs, inputs in (each.shape[:2] for name, each in tensors.items() if name.endswith(targets)):
        shapes += [(rank, inputs), (outputs, rank), *([(outputs,)] if values["method"] == "dora" else [])]
    return shapes


def _tensors(parent: ModelVersion, part: str) -> dict[str, TensorInfo] | None:
    """The tensors of a part of the parent, by name, from the heads of its files."""
    paths = sorted((parent.folder / part).glob("*.safetensors"))
    try:
        return {name: each for path in paths for name, each in read_header(path).items()} or None
    except (OSError, HeaderRefused):
        return None


def _parts(values: Mapping[str, Any]) -> int:
    """Into how many parts the denoiser, its gradients, moments and average go."""
    return process_count(values) if values.get("sharded") else 1


def _checkpoint_bytes(memory: Memory, parts: int) -> int | None:
    """Two checkpoints: the trained weights, the optimizer's moments, and the average, put together from the parts."""
    if memory.gradients is None or memory.moments is None or memory.average is None:
        return None
    return 2 * parts * (memory.gradients + memory.moments + memory.average)


def _largest_device() -> int:
    """Bytes of the largest device of a live worker that trains; 0 where none says."""
    workers = live_workers().filter(queues__contains="train")
    return max((worker.device_memory_mb for worker in workers), default=0) * 2**20
