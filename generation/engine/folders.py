"""Model folders: an ordinary diffusers `StableDiffusionPipeline` folder, inspected and hashed without torch.

Nothing here runs or unpickles what it reads: configs are parsed as JSON, and of the weights only the safetensors
headers. What passes `inspect_folder` can be loaded by `generation.engine.pipeline.load_pipeline`.
"""

import hashlib
import json
import math
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from generation.engine.safetensors_headers import HeaderRefused, TensorInfo, read_header

PICKLE_SUFFIXES = {
    ".bin",
    ".ckpt",
    ".pt",
    ".pth",
    ".pkl",
    ".pickle",
    ".pyc",
    ".joblib",
    ".npy",
    ".npz",
    ".h5",
    ".msgpack",
}
SCHEDULERS = {
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
}
# Part -> (library, classes that may stand there, weights file or None).
PARTS: dict[str, tuple[str, set[str], str | None]] = {
    "unet": ("diffusers", {"UNet2DConditionModel"}, "diffusion_pytorch_model.safetensors"),
    "vae": ("diffusers", {"AutoencoderKL"}, "diffusion_pytorch_model.safetensors"),
    "text_encoder": ("transformers", {"CLIPTextModel"}, "model.safetensors"),
    "tokenizer": ("transformers", {"CLIPTokenizer", "CLIPTokenizerFast"}, None),
    "scheduler": ("diffusers", SCHEDULERS, None),
}
# Parts that a folder may name and that are never loaded.
UNUSED_PARTS = {
    "safety_checker": {"stable_diffusion", "diffusers", "transformers"},
    "feature_extractor": {"transformers"},
    "image_encoder": {"transformers"},
}
BETA_SCHEDULES = {"linear", "scaled_linear", "squaredcos_cap_v2"}
PREDICTION_TYPES = {"epsilon", "v_prediction", "sample"}
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
# The updates of a low-rank run, beside the parts that it merged them into.
LOW_RANK_FILE = "lora/pytorch_lora_weights.safetensors"
READ_BYTES = 1 << 20
# The largest tokenizers have some 20 MB; more is no config, and would be read whole into the memory of the web.
MAX_JSON_BYTES = 64 << 20
# Beyond these a config asks for a network or an image that no machine holds, however small its weights are.
MAX_SIDE = 4096
MAX_LEVELS = 8
MAX_LAYERS = 100
MAX_TIMESTEPS = 10_000

Manifest = dict[str, dict[str, str | int]]


class FolderRefused(Exception):
    """A folder that is no usable model; `sentence` is for a person and says what to change."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


@dataclass(frozen=True)
class FolderReport:
    """What a model folder says about itself.

    `resolution` is the side of the square image, in pixels, that the U-Net was built for; `dtype` the U-Net's type on
    disk; `parameters` the number of weights of each part; `max_tokens` counts the start and end tokens too.
    """

    resolution: int
    latent_channels: int
    latent_size: int
    has_alpha: bool
    prediction_type: str
    scheduler: str
    scheduler_config: Mapping[str, Any]
    text_width: int
    max_tokens: int
    dtype: str
    parameters: Mapping[str, int]
    total_bytes: int
    files: tuple[str, ...]


def inspect_folder(path: Path) -> FolderReport:
    """Check every part of a model folder. Raises `FolderRefused` with a sentence for the first thing wrong."""
    files = dict(_walk(Path(path)))
    root = Path(path)
    index = _read_json(root, "model_index.json", files, "The folder has no model_index.json: it is no diffusers model.")
    _check_index(index)
    configs = {part: _read_config(root, part, files) for part in PARTS if part != "tokenizer"}
    headers = {part: _read_weights(root, part, files) for part in PARTS if PARTS[part][2]}
    _check_networks(configs, headers)
    _check_tokenizer(root, files, configs["text_encoder"])
    _check_scheduler(configs["scheduler"])
    return _report(index, configs, headers, files)


def hash_folder(path: Path) -> tuple[str, Manifest]:
    """(content hash, manifest) of a model folder; the files are streamed, never held in memory.

    The manifest is {relative path: {"sha256": hex digest, "bytes": size}}, and the hash is the SHA-256 of its canonical
    JSON (sorted keys, no spaces, UTF-8): it depends on names and contents alone. Raises `FolderRefused` for links and
    for files that are no plain files.
    """
    root = Path(path)
    manifest: Manifest = {name: {"sha256": hash_file(root / name), "bytes": size} for name, size in sorted(_walk(root))}
    return hash_manifest(manifest), manifest


def hash_manifest(manifest: Mapping[str, Mapping[str, str | int]]) -> str:
    """The content hash of a manifest as `hash_folder` makes it."""
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """(relative POSIX path, bytes) of every file, in no order; refuses links, pickles and Python code."""
    if root.is_symlink() or not root.is_dir():
        raise FolderRefused("The model is not a folder.")
    pending = [root]
    while pending:
        for entry in _entries(pending.pop()):
            name = entry.relative_to(root).as_posix()
            mode = entry.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise FolderRefused(f"{name} is a link; a model folder must hold the files themselves.")
            if stat.S_ISDIR(mode):
                pending.append(entry)
            elif not stat.S_ISREG(mode):
                raise FolderRefused(f"{name} is not a plain file.")
            elif entry.suffix.lower() in PICKLE_SUFFIXES:
                raise FolderRefused(
                    f"{name} may carry code that runs when it is loaded; only safetensors weights are accepted."
                )
            elif entry.suffix.lower() == ".py":
                raise FolderRefused(f"{name} is Python code; a model folder with its own code is not accepted.")
            else:
                yield name, entry.lstat().st_size


def _entries(folder: Path) -> list[Path]:
    """What a folder holds. Names that are no text could neither be hashed nor kept, and are refused."""
    try:
        found = list(folder.iterdir())
    except OSError:
        raise FolderRefused(f"The folder {folder.name} cannot be read.") from None
    for entry in found:
        if not entry.name.isprintable():
            raise FolderRefused(f"The name of the file {entry.name!a} has characters that cannot be shown.")
    return found


def _read_json(root: Path, name: str, files: Mapping[str, int], missing: str) -> dict[str, Any]:
    if name not in files:
        raise FolderRefused(missing)
    if files[name] > MAX_JSON_BYTES:
        raise FolderRefused(f"{name} is larger than {MAX_JSON_BYTES >> 20} MB, which no such file is.")
    try:
        value = json.loads((root / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise FolderRefused(f"{name} is not readable JSON.") from None
    if not isinstance(value, dict):
        raise FolderRefused(f"{name} is not a JSON object.")
    if "auto_map" in value or value.get("trust_remote_code"):
        raise FolderRefused(f"{name} asks for code of its own; a model folder with its own code is not accepted.")
    return value


def _check_index(index: Mapping[str, Any]) -> None:
    kind = index.get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise FolderRefused(f"The folder holds a “{kind}”; only StableDiffusionPipeline folders are accepted.")
    for part, value in index.items():
        if part.startswith("_") or not isinstance(value, list):
            continue
        if len(value) != 2 or not all(each is None or isinstance(each, str) for each in value):
            raise FolderRefused(f"model_index.json describes “{part}” in a way that is not known.")
        library, kind = value
        if library is None and part not in PARTS:
            continue
        if part in PARTS:
            expected, kinds, _ = PARTS[part]
            if library != expected or kind not in kinds:
                raise FolderRefused(f"The model's {part} is “{library}.{kind}”, which is not accepted.")
        elif library not in UNUSED_PARTS.get(part, set()):
            raise FolderRefused(f"The model asks for “{library}.{kind}” as its {part}, which is not accepted.")
    for part in PARTS:
        if not isinstance(index.get(part), list):
            raise FolderRefused(f"model_index.json names no {part}.")


def _read_config(root: Path, part: str, files: Mapping[str, int]) -> dict[str, Any]:
    name = f"{part}/scheduler_config.json" if part == "scheduler" else f"{part}/config.json"
    return _read_json(root, name, files, f"The model lacks {name}.")


def _read_weights(root: Path, part: str, files: Mapping[str, int]) -> dict[str, TensorInfo]:
    """The tensors of a part by name, from one safetensors file or from the shards that an index lists."""
    weights = f"{part}/{PARTS[part][2]}"
    names = [weights]
    if weights not in files and f"{weights}.index.json" in files:
        index = _read_json(root, f"{weights}.index.json", files, "")
        shards = index.get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise FolderRefused(f"{weights}.index.json lists no weights.")
        names = sorted({(PurePosixPath(part) / str(shard)).as_posix() for shard in shards.values()})
    tensors: dict[str, TensorInfo] = {}
    for name in names:
        if name not in files:
            raise FolderRefused(f"The model lacks {name}.")
        try:
            tensors.update(read_header(root / name))
        except HeaderRefused as refused:
            raise FolderRefused(f"{name} is no whole safetensors file: {refused.reason}.") from None
        except OSError:
            raise FolderRefused(f"{name} cannot be read.") from None
    return tensors


def _whole(config: Mapping[str, Any], key: str, default: Any, what: str, *, most: float = math.inf) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise FolderRefused(f"{what} has no usable {key}.")
    return value


def _levels(config: Mapping[str, Any], default: list[int], what: str) -> list[int]:
    """The widths of a network's levels."""
    key = "block_out_channels"
    widths = config.get(key, default)
    if not isinstance(widths, list) or not 1 <= len(widths) <= MAX_LEVELS:
        raise FolderRefused(f"{what} has no usable {key}.")
    return [_whole({key: width}, key, None, what) for width in widths]


def _check_depths(unet: Mapping[str, Any], vae: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    """How deep the networks are: a number with a few zeros too many would keep the worker building until it dies."""
    for config, what in ((unet, "The U-Net's config"), (vae, "The VAE's config")):
        depths = config.get("layers_per_block", 2)
        for depth in depths if isinstance(depths, list) else [depths]:
            _whole({"layers_per_block": depth}, "layers_per_block", None, what, most=MAX_LAYERS)
    pending = [unet.get(f"{side}transformer_layers_per_block") for side in ("", "reverse_")]
    while pending:  # A number, a list with one for each level, or a list of lists.
        depth = pending.pop()
        if isinstance(depth, list):
            pending += depth
        elif depth is not None:
            key = "transformer_layers_per_block"
            _whole({key: depth}, key, None, "The U-Net's config", most=MAX_LAYERS)
    _whole(text, "num_hidden_layers", 12, "The text encoder's config", most=MAX_LAYERS)


def _check_networks(configs: Mapping[str, Mapping[str, Any]], headers: Mapping[str, Mapping[str, TensorInfo]]) -> None:
    unet, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
    latent = _whole(vae, "latent_channels", 4, "The VAE's config")
    for key in ("in_channels", "out_channels"):
        channels = _whole(unet, key, 4, "The U-Net's config")
        if channels != latent:
            raise FolderRefused(
                f"The U-Net has {channels} {key.replace('_', ' ')}, but the VAE's latents have {latent}."
            )
    hidden = _whole(text, "hidden_size", 512, "The text encoder's config")
    widths = unet.get("cross_attention_dim", 1280)
    for width in widths if isinstance(widths, list) else [widths]:
        if width != hidden:
            raise FolderRefused(f"The U-Net expects text of width {width}, but the text encoder gives {hidden}.")
    if _whole(vae, "in_channels", 3, "The VAE's config") != 3:
        raise FolderRefused("The VAE must take three colour channels.")
    out = _whole(vae, "out_channels", 3, "The VAE's config")
    if out not in (3, 4):
        raise FolderRefused(f"The VAE draws {out} channels; it must draw three, or four with transparency.")
    _check_depths(unet, vae, text)
    first = _levels(unet, [320], "The U-Net's config")[0]
    shapes = [
        ("unet", "conv_in.weight", (first, latent, *_kernel(unet))),
        ("vae", "decoder.conv_out.weight", (out, None, 3, 3)),
        (
            "text_encoder",
            "embeddings.token_embedding.weight",
            (_whole(text, "vocab_size", 49408, "The text encoder's config"), hidden),
        ),
    ]
    for part, name, shape in shapes:
        _check_shape(part, name, shape, headers[part])


def _kernel(unet: Mapping[str, Any]) -> tuple[int, int]:
    size = _whole(unet, "conv_in_kernel", 3, "The U-Net's config")
    return size, size


def _check_shape(part: str, name: str, shape: tuple[int | None, ...], tensors: Mapping[str, TensorInfo]) -> None:
    """The weights must be those of the config. Older text encoders prefix their names with `text_model.`."""
    tensor = tensors.get(name) or tensors.get(f"text_model.{name}")
    if tensor is None:
        raise FolderRefused(f"The weights of the {part} lack {name}.")
    same = len(tensor.shape) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not same:
        raise FolderRefused(f"The weights of the {part} do not fit its config: {name} is {list(tensor.shape)}.")


def _check_tokenizer(root: Path, files: Mapping[str, int], text: Mapping[str, Any]) -> None:
    """Every token must have an embedding: an id beyond the table would crash the text encoder when it is drawn."""
    vocab_size = _whole(text, "vocab_size", 49408, "The text encoder's config")
    if "tokenizer/tokenizer.json" in files:
        content = _read_json(root, "tokenizer/tokenizer.json", files, "")
        model, tokens = content.get("model"), content.get("added_tokens", [])
        vocab = model.get("vocab") if isinstance(model, dict) else None
        added = [token.get("id", 0) if isinstance(token, dict) else None for token in _list(tokens)]
    elif "tokenizer/vocab.json" in files and "tokenizer/merges.txt" in files:
        vocab = _read_json(root, "tokenizer/vocab.json", files, "")
        added = []
    else:
        raise FolderRefused("The model lacks tokenizer/tokenizer.json, or tokenizer/vocab.json with merges.txt.")
    ids = [*vocab.values(), *added] if isinstance(vocab, dict) else []
    if not ids or not all(isinstance(each, int) for each in ids):
        raise FolderRefused("The tokenizer has no usable vocabulary.")
    if max(ids) >= vocab_size:
        raise FolderRefused(f"The tokenizer has {max(ids) + 1} tokens, but the text encoder knows {vocab_size}.")
    if "tokenizer/tokenizer_config.json" in files:
        config = _read_json(root, "tokenizer/tokenizer_config.json", files, "")
        longest = config.get("model_max_length")
        positions = _whole(text, "max_position_embeddings", 77, "The text encoder's config")
        if isinstance(longest, int) and longest < 10**9 and longest > positions:
            raise FolderRefused(f"The tokenizer gives {longest} tokens, but the text encoder takes {positions}.")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check_scheduler(config: Mapping[str, Any]) -> None:
    # As text, since a list in a place of a name could not be looked up in a set.
    kind, schedule = str(config.get("_class_name")), str(config.get("beta_schedule", "linear"))
    predicted = str(config.get("prediction_type", "epsilon"))
    if kind not in SCHEDULERS:
        raise FolderRefused(f"The scheduler “{kind}” is not known.")
    if schedule not in BETA_SCHEDULES and config.get("trained_betas") is None:
        raise FolderRefused(f"The scheduler's noise schedule “{schedule}” is not known.")
    if predicted not in PREDICTION_TYPES:
        raise FolderRefused(f"The scheduler predicts “{predicted}”, which is not known.")
    _whole(config, "num_train_timesteps", 1000, "The scheduler's config", most=MAX_TIMESTEPS)


def _report(
    index: Mapping[str, Any],
    configs: Mapping[str, Mapping[str, Any]],
    headers: Mapping[str, Mapping[str, TensorInfo]],
    files: Mapping[str, int],
) -> FolderReport:
    unet, vae, scheduler = configs["unet"], configs["vae"], configs["scheduler"]
    latent_size = _whole(unet, "sample_size", 64, "The U-Net's config")
    resolution = latent_size * 2 ** (len(_levels(vae, [64], "The VAE's config")) - 1)
    if resolution > MAX_SIDE:
        raise FolderRefused(
            f"The model draws images of {resolution:,} px a side; at most {MAX_SIDE:,} px are accepted."
        )
    return FolderReport(
        resolution=resolution,
        latent_channels=vae.get("latent_channels", 4),
        latent_size=latent_size,
        has_alpha=vae.get("out_channels", 3) == 4,
        prediction_type=scheduler.get("prediction_type", "epsilon"),
        scheduler=index["scheduler"][1],
        scheduler_config=scheduler,
        text_width=configs["text_encoder"].get("hidden_size", 512),
        max_tokens=configs["text_encoder"].get("max_position_embeddings", 77),
        dtype=DTYPES.get(headers["unet"]["conv_in.weight"].dtype, headers["unet"]["conv_in.weight"].dtype),
        parameters={part: sum(math.prod(t.shape) for t in tensors.values()) for part, tensors in headers.items()},
        total_bytes=sum(files.values()),
        files=tuple(sorted(files)),
    )
