"""What a training run is asked to do: `run.json` as frozen dataclasses, and nothing that is not understood.

The web process writes the file and the trainer reads it, both through this module, which imports no torch.

run.json (keys with a default may be left out; unknown keys are refused):

    {"schema": 1,
     "parent": "folder of a model", "parent_hash": "content hash by generation.engine.folders",
     "sources": [{"name": "content", "manifest": "images.jsonl",
                  "band": {"log_snr_min": null, "log_snr_max": -4.244}, "weight": 1.0}, ...],
     "cache_dir": "folder of cached latents and text embeddings, shared by runs", "steps": 300, ...}

Paths are absolute, or relative to the run's folder. A manifest is a file of JSON lines (or one JSON list) of
{"image": path, "caption": text, "sha256": hex digest of the file}; other keys of a line are ignored, relative image
paths are relative to the manifest. For the objective "dpo" each line is a pair, whose image was preferred over
"rejected" (path) with "rejected_sha256".

A source may be a corpus instead: {"name": ..., "manifest": "index made by training.engine.corpora", "corpus": "folder of its
shards, or its address in S3", "corpus_hash": "content hash of the index", ...}. With "prompt_free": true a source of either kind trains without
captions.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from generation.engine.requests import SCHEDULERS
from training.engine.bands import FULL_BAND, LARGEST_EDGE, Band
from training.engine.flows import FLOW_DEFAULTS, SAMPLINGS, WEIGHTINGS

SCHEMA = 1
METHODS = ("full", "lora", "dora")
# What LoRA adds to, by network: the attention projections, as usual in Stable Diffusion (Hu et al. 2021, arXiv
# 2106.09685), and as in diffusers' own scripts for Stable Diffusion 3, where the text has projections of its own, and
# for Flux.
_JOINT_ATTENTION = tuple(
    f"attn.{each}"
    for each in ("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out", "to_k", "to_out.0", "to_q", "to_v")
)
LORA_TARGETS = {
    "UNet2DConditionModel": ("to_q", "to_k", "to_v", "to_out.0"),
    "SD3Transformer2DModel": _JOINT_ATTENTION,
    "FluxTransformer2DModel": (
        *_JOINT_ATTENTION,
        "ff.net.0.proj",
        "ff.net.2",
        "ff_context.net.0.proj",
        "ff_context.net.2",
    ),
}
OBJECTIVES = ("denoise", "dpo", "alpha")
OPTIMIZERS = ("adamw", "adamw8bit", "adafactor")
# bitsandbytes makes weights contiguous at every step: what it keeps of them would not lie as they do.
LAYS_OUT_ITSELF = ("adamw8bit",)
LR_SCHEDULES = ("constant", "cosine")
PRECISIONS = ("auto", "fp32", "bf16")
MIXTURES = ("natural", "shares")
IMAGE_DRAWS = ("replacement", "epochs")
KERNELS = ("auto", "probe", "plain", "channels_last", "compiled")
DEVICES = ("auto", "cpu", "cuda")
SHAPES = ("square", "aspect")
# Of so many images of corpora at most are latents made before the first step, however small they are: more would let a run
# wait for hours.
CACHED_FIRST = 100_000
# All images as squares; the other two say something of shapes by aspect ratio alone.
SHAPE_DEFAULTS: dict[str, Any] = {"shapes": "square", "greatest_aspect": 2.0, "never_enlarge": False}


class RunRefused(Exception):
    """A run that cannot be trained as asked.

    `sentence` is for a person, `field` names the key of run.json that is wrong ("" if it is none of them), `retry`
    says whether the same request may succeed later.
    """

    def __init__(self, sentence: str, *, field: str = "", retry: bool = False) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.field = field
        self.retry = retry


@dataclass(frozen=True)
class Source:
    """One row of the recipe table: images with captions, the noise levels they teach, and their weight.

    Where `corpus` is a folder of shards, `manifest` is their index, whose content hash is `corpus_hash`. `prompt_free` trains
    all images with the empty caption, whatever theirs are.
    """

    name: str
    manifest: str
    band: Band = FULL_BAND
    weight: float = 1.0
    corpus: str = ""
    corpus_hash: str = ""
    prompt_free: bool = False


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt that is drawn at step 0 (the parent) and again as the run goes on."""

    prompt: str
    seed: int = 0


@dataclass(frozen=True)
class RunSettings:
    """Everything that decides a run's result, and where it runs."""

    parent: str
    parent_hash: str
    sources: tuple[Source, ...]
    cache_dir: str
    schema: int = SCHEMA
    # full: all weights of the denoiser; lora: low-rank updates of its attention projections, merged into the result;
    # dora: the same with a magnitude of its own for every output (Liu et al. 2024, arXiv 2402.09353).
    method: str = "full"
    lora_rank: int = 16
    # denoise: the loss of the noise; dpo: prefer each pair's image to its rejected one, more than the parent does
    # (Diffusion-DPO: Wallace et al. 2023, arXiv 2311.12908); alpha: teach the VAE's decoder transparency, and leave the
    # denoiser and the encoder alone.
    objective: str = "denoise"
    # How strongly dpo holds on to the parent: the more, the less the result may differ from it.
    dpo_beta: float = 2000.0
    # The weights of colour and alpha in the loss of a decoder, and on how many colours drawn at random, besides white,
    # each of its images is compared.
    colour_weight: float = 1.0
    alpha_weight: float = 1.0
    backgrounds: int = 1
    # Compute the activations of a pass again on the way back: less memory, more time.
    gradient_checkpointing: bool = False
    steps: int = 300
    # Images of one forward pass; a step sees batch_size x gradient_accumulation images.
    batch_size: int = 16
    gradient_accumulation: int = 1
    learning_rate: float = 1e-4
    # adamw8bit and adafactor remember less of each weight; adafactor's learning rate counts in shares of a weight's size.
    # See `optimizers`.
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "constant"
    warmup_steps: int = 0
    max_grad_norm: float = 1.0
    # Decay of the moving average of the weights, which then becomes the result; null trains without one.
    ema_decay: float | None = None
    # Min-SNR loss weights (Hang et al. 2023, arXiv 2303.09556); null leaves every timestep at weight 1.
    min_snr_gamma: float | None = None
    # Noise of one value a channel, this strong, on top of each draw's noise: teaches very dark and very light images.
    noise_offset: float = 0.0
    # Of flow-matching models: how their noise levels are drawn ("logit_normal" with a mean and a standard deviation of
    # logit(sigma), or "uniform"), and the weights of their losses (see `flows` and `batches.Flow`).
    timestep_sampling: str = "logit_normal"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    flow_weighting: str = "none"
    # Share of each source's images that only validation sees; 0 validates on images that are trained on.
    holdout: float = 0.0
    # square: the middle of every image, at the model's own side; aspect: shapes near the images' own aspect ratios, of at
    # most the square's area, whose longer side is at most so many times the shorter one (see `shapes`).
    shapes: str = SHAPE_DEFAULTS["shapes"]
    greatest_aspect: float = SHAPE_DEFAULTS["greatest_aspect"]
    # Give small images smaller shapes.
    never_enlarge: bool = SHAPE_DEFAULTS["never_enlarge"]
    # Share of captions replaced by the empty one, which guidance needs.
    caption_dropout: float = 0.1
    # natural: t first, then a source whose band holds t. shares: the source by weight first, then t in its band.
    mixture: str = "natural"
    # epochs: each image of a source once before any comes again (see `draws.Mixture`); replacement: each draw anew.
    image_draws: str = "replacement"
    # Only with "shares": weigh each draw by its natural probability, so that the expected loss is the natural one.
    importance_weights: bool = False
    # Where the latents and captions of all corpora would take more GiB than this, they are made as they are drawn, and not
    # kept; see `cache`.
    corpus_cache_gib: float = 50.0
    seed: int = 0
    precision: str = "auto"
    # How a step is computed: "auto" tries on a GPU, "probe" everywhere; see `kernels`.
    kernels: str = "auto"
    # Among several processes: each keeps a part of every weight, its gradient and its moments, for models that one GPU does
    # not hold; see `sharding`. A process alone has nothing to share, and trains as without.
    sharded: bool = False
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    # 0 switches validation, or samples, off.
    validate_every: int = 50
    sample_every: int = 100
    sample_prompts: tuple[SamplePrompt, ...] = field(default=())
    sample_steps: int = 20
    sample_guidance: float = 4.0
    # Which of drawing's schedulers; runs from before it was said go on with the folder's own, as they began.
    sample_scheduler: str = "default"
    device: str = "auto"
    # CPU threads; null takes OMP_NUM_THREADS, or all cores but one.
    num_threads: int | None = None

    @property
    def images_per_step(self) -> int:
        return self.batch_size * self.gradient_accumulation

    @property
    def trains_decoder(self) -> bool:
        """Whether the VAE's decoder is trained, and not the denoiser."""
        return self.objective == "alpha"

    @property
    def is_low_rank(self) -> bool:
        return self.method in ("lora", "dora")

    def as_json(self) -> dict[str, Any]:
        """The mapping that `parse_run` reads back to an equal value."""
        return json.loads(json.dumps(asdict(self)))


_CHOICES = {
    "method": METHODS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "schedule": LR_SCHEDULES,
    "precision": PRECISIONS,
    "kernels": KERNELS,
    "mixture": MIXTURES,
    "image_draws": IMAGE_DRAWS,
    "timestep_sampling": SAMPLINGS,
    "flow_weighting": WEIGHTINGS,
    "device": DEVICES,
    "shapes": SHAPES,
    "sample_scheduler": SCHEDULERS,
}
# (least, most), both allowed.
_WHOLE_NUMBERS = {
    "lora_rank": (1, 1024),
    "steps": (1, 10_000_000),
    "batch_size": (1, 4096),
    "gradient_accumulation": (1, 4096),
    "warmup_steps": (0, 10_000_000),
    "seed": (0, 2**63 - 1),
    "checkpoint_every": (1, 10_000_000),
    "keep_checkpoints": (1, 1000),
    "validate_every": (0, 10_000_000),
    "sample_every": (0, 10_000_000),
    "sample_steps": (1, 1000),
    "num_threads": (1, 1024),
    "backgrounds": (0, 16),
}
_NUMBERS = {
    "learning_rate": (1e-9, 1.0),
    "weight_decay": (0.0, 1.0),
    "max_grad_norm": (1e-6, 1e6),
    "ema_decay": (0.0, 0.999999),
    "min_snr_gamma": (1e-3, 1e3),
    "dpo_beta": (1e-3, 1e6),
    "colour_weight": (0.0, 1000.0),
    "alpha_weight": (1e-3, 1000.0),
    "caption_dropout": (0.0, 1.0),
    "noise_offset": (0.0, 1.0),
    "holdout": (0.0, 0.5),
    "greatest_aspect": (1.0, 8.0),
    "logit_mean": (-10.0, 10.0),
    "logit_std": (0.05, 10.0),
    "sample_guidance": (0.0, 50.0),
    "corpus_cache_gib": (0.0, 1e6),
}
_SWITCHES = ("importance_weights", "gradient_checkpointing", "never_enlarge", "sharded")
_NULLABLE = {"ema_decay", "min_snr_gamma", "num_threads"}


def parse_run(data: Any) -> RunSettings:
    """Check a decoded run.json. Raises `RunRefused` with a sentence and the key for the first thing wrong."""
    if not isinstance(data, Mapping):
        raise RunRefused("The run's settings must be a JSON object.")
    known = {each.name: each for each in fields(RunSettings)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise RunRefused(f"The run's settings have keys that are not known: {', '.join(unknown)}.", field=unknown[0])
    missing = [
        name
        for name, each in known.items()
        if each.default is MISSING and each.default_factory is MISSING and name not in data
    ]
    if missing:
        raise RunRefused(f"The run's settings lack {', '.join(missing)}.", field=missing[0])
    values = {name: _check(name, value) for name, value in data.items()}
    settings = RunSettings(**values)
    if settings.importance_weights and settings.mixture != "shares":
        raise RunRefused("Importance weights need the mixture “shares”.", field="importance_weights")
    for name in ("greatest_aspect", "never_enlarge"):
        if settings.shapes == "square" and getattr(settings, name) != SHAPE_DEFAULTS[name]:
            raise RunRefused(f"{_label(name)} says something of the shapes “aspect” alone.", field=name)
    if settings.kernels == "compiled" and settings.shapes != "square":
        raise RunRefused(
            "What is compiled for one shape is not exact for others: compiled steps need squares.", field="kernels"
        )
    if settings.objective == "dpo" and settings.min_snr_gamma is not None:
        raise RunRefused("Min-SNR weights are of the loss of the noise; dpo has none.", field="min_snr_gamma")
    if settings.objective == "dpo" and settings.flow_weighting != FLOW_DEFAULTS["flow_weighting"]:
        raise RunRefused(
            "Weights of a flow's losses are of the loss of the velocity; dpo has none.", field="flow_weighting"
        )
    if settings.objective == "dpo" and any(source.corpus for source in settings.sources):
        raise RunRefused("A corpus has single images, and dpo learns from pairs.", field="sources")
    if settings.objective != "denoise" and any(source.prompt_free for source in settings.sources):
        raise RunRefused(
            "Pairs are judged by their caption, and a decoder reads none: no source of theirs is prompt-free.",
            field="sources",
        )
    if settings.kernels == "channels_last" and settings.optimizer in LAYS_OUT_ITSELF:
        raise RunRefused("AdamW in 8 bits lays weights out itself: it does not go with channels last.", field="kernels")
    if settings.trains_decoder:
        _check_decoder(settings)
    if settings.sharded:
        _check_sharding(settings)
    return settings


def _check_decoder(settings: RunSettings) -> None:
    """Refuse what says something of noise, or of attention: a decoder has neither."""
    if settings.is_low_rank:
        raise RunRefused("The transparency decoder is trained with all its weights.", field="method")
    without = {"min_snr_gamma": None, "noise_offset": 0.0, **FLOW_DEFAULTS}
    for name, nothing in without.items():
        if getattr(settings, name) != nothing:
            raise RunRefused(f"{_label(name)} is of the loss of the noise; a decoder has none.", field=name)
    if any(source.band != FULL_BAND for source in settings.sources):
        raise RunRefused("A decoder learns at no noise level: its sources have no bands.", field="sources")


def _check_sharding(settings: RunSettings) -> None:
    """Refuse what needs whole weights, or has none to shard."""
    if settings.objective == "dpo":
        raise RunRefused(
            "Preferences compare with the parent as a whole: they are not learned in shards.", field="objective"
        )
    if settings.trains_decoder:
        raise RunRefused("A decoder is small: it is not trained in shards.", field="objective")
    if settings.optimizer != "adamw":
        raise RunRefused("In shards only AdamW is known to do what it does with whole weights.", field="optimizer")
    if settings.kernels not in ("auto", "plain"):
        raise RunRefused("In shards a step is computed in the plain way.", field="kernels")
    if settings.shapes != "square":
        # All processes pass through the network together, as often as each other.
        raise RunRefused("In shards all images are squares.", field="shapes")


def load_run(path: Path) -> RunSettings:
    """Read and check a run.json file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunRefused(f"The run has no {path.name}.") from None
    except (OSError, ValueError):
        raise RunRefused(f"The run's {path.name} is not readable JSON.") from None
    return parse_run(data)


def _check(name: str, value: Any) -> Any:
    if value is None and name in _NULLABLE:
        return None
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise RunRefused(f"{_label(name)} must be one of {', '.join(_CHOICES[name])}.", field=name)
        return value
    if name in _WHOLE_NUMBERS:
        return _number(name, value, *_WHOLE_NUMBERS[name], whole=True)
    if name in _NUMBERS:
        return _number(name, value, *_NUMBERS[name], whole=False)
    if name == "schema" and value != SCHEMA:
        raise RunRefused(f"The run's settings have schema {value}; this trainer knows schema {SCHEMA}.", field=name)
    if name in ("parent", "parent_hash", "cache_dir"):
        return _text(name, value)
    if name in _SWITCHES and not isinstance(value, bool):
        raise RunRefused(f"{_label(name)} must be true or false.", field=name)
    if name == "sources":
        return _sources(value)
    if name == "sample_prompts":
        return _sample_prompts(value)
    return value


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise RunRefused(f"{_label(name)} must be a text that is not empty.", field=name)
    return value


def _number(name: str, value: Any, least: float, most: float, *, whole: bool) -> int | float:
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        raise RunRefused(f"{_label(name)} must be a {'whole ' if whole else ''}number.", field=name)
    if not least <= value <= most:
        raise RunRefused(f"{_label(name)} must lie between {least:g} and {most:g}.", field=name)
    return value if whole else float(value)


def _only(value: Any, allowed: set[str], what: str, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RunRefused(f"{what} must be a JSON object.", field=name)
    unknown = sorted(set(value) - allowed)
    if unknown:
        raise RunRefused(f"{what} has keys that are not known: {', '.join(unknown)}.", field=name)
    return dict(value)


def _sources(value: Any) -> tuple[Source, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise RunRefused("The recipe needs at least one source.", field="sources")
    sources = tuple(_source(each) for each in value)
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise RunRefused("Two sources of the recipe have the same name.", field="sources")
    return sources


def _source(value: Any) -> Source:
    known = {each.name for each in fields(Source)}
    row = _only(value, known, "A source", "sources")
    if "name" not in row or "manifest" not in row:
        raise RunRefused("A source needs a name and a manifest.", field="sources")
    band = _only(row.get("band") or {}, {"log_snr_min", "log_snr_max"}, "A band", "sources")
    edges = {
        key: None if edge is None else float(_number(key, edge, -LARGEST_EDGE, LARGEST_EDGE, whole=False))
        for key, edge in band.items()
    }
    weight = float(_number("weight", row.get("weight", 1.0), 1e-6, 1e6, whole=False))
    prompt_free = row.get("prompt_free", False)
    if not isinstance(prompt_free, bool):
        raise RunRefused("A source's prompt_free must be true or false.", field="sources")
    source = Source(
        _text("name", row["name"]), _text("manifest", row["manifest"]), Band(**edges), weight, prompt_free=prompt_free
    )
    if not row.get("corpus") and not row.get("corpus_hash"):
        return source
    return replace(
        source, corpus=_text("corpus", row.get("corpus")), corpus_hash=_text("corpus_hash", row.get("corpus_hash"))
    )


def _sample_prompts(value: Any) -> tuple[SamplePrompt, ...]:
    if not isinstance(value, list | tuple):
        raise RunRefused("The sample prompts must be a list.", field="sample_prompts")
    prompts = []
    for each in value:
        row = _only(each, {"prompt", "seed"}, "A sample prompt", "sample_prompts")
        if not isinstance(row.get("prompt"), str):
            raise RunRefused("A sample prompt needs a text.", field="sample_prompts")
        seed = int(_number("seed", row.get("seed", 0), *_WHOLE_NUMBERS["seed"], whole=True))
        prompts.append(SamplePrompt(row["prompt"], seed))
    return tuple(prompts)
