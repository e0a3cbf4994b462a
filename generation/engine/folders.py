"""Model folders: an ordinary diffusers folder of one of the `families`, inspected and hashed without torch.

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

from generation.engine.families import (
    FAMILIES,
    FLUX,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_3,
    T5_TOKENIZERS,
    Family,
)
from generation.engine.flux_folders import PACKING, check_flux_networks, flux_latent_size, flux_tokens
from generation.engine.folder_checks import (
    FolderRefused,
    check_ids,
    check_resolution,
    levels,
    whole,
)
from generation.engine.safetensors_headers import HeaderRefused, TensorInfo, read_header
from generation.engine.sd3_folders import SD3_TOKENS, check_flow_scheduler, check_sd3_networks
from generation.engine.sd_folders import check_diffusion_scheduler, check_sd_networks, check_sdxl_networks

__all__ = ["FolderRefused", "FolderReport", "hash_file", "hash_folder", "hash_manifest", "inspect_folder"]

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
# Parts that a folder may name and that are never loaded.
UNUSED_PARTS = {
    "safety_checker": {"stable_diffusion", "diffusers", "transformers"},
    "feature_extractor": {"transformers"},
    "image_encoder": {"transformers"},
}
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
# Whose type stands for that of all of the denoiser's weights.
FIRST_WEIGHTS = {
    "StableDiffusionPipeline": "conv_in.weight",
    "StableDiffusionXLPipeline": "conv_in.weight",
    "StableDiffusion3Pipeline": "pos_embed.proj.weight",
    "FluxPipeline": "x_embedder.weight",
}
CHECKS = {
    "StableDiffusionPipeline": check_sd_networks,
    "StableDiffusionXLPipeline": check_sdxl_networks,
    "StableDiffusion3Pipeline": check_sd3_networks,
    "FluxPipeline": check_flux_networks,
}
# The updates of a low-rank run, beside the parts that it merged them into.
LOW_RANK_FILE = "lora/pytorch_lora_weights.safetensors"
READ_BYTES = 1 << 20
# The largest tokenizers have some 20 MB; more is no config, and would be read whole into the memory of the web.
MAX_JSON_BYTES = 64 << 20
Manifest = dict[str, dict[str, str | int]]


@dataclass(frozen=True)
class FolderReport:
    """What a model folder says about itself.

    `resolution` is the side of the square image, in pixels, that the denoiser was built for; `dtype` the denoiser's type
    on disk; `parameters` the number of weights of each part; `max_tokens` counts the start and end tokens too. A
    transformer sees its latents in patches of `patch_size`, `image_tokens` of them in such an image, and `largest_side`
    is the side in pixels beyond which it has no positions; None where there is no such limit. `shape_step` is the pixels
    of one position at the denoiser's coarsest level: sides in multiples of it need no padding. `t5_tokens` are how many
    tokens a prompt has for T5, with what fills it up; 0 in families without T5.
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
    pipeline: str = STABLE_DIFFUSION.pipeline
    denoiser: str = STABLE_DIFFUSION.denoiser
    patch_size: int = 1
    image_tokens: int = 0
    largest_side: int | None = None
    shape_step: int = 8
    t5_tokens: int = 0

    @property
    def is_flow(self) -> bool:
        return FAMILIES[self.pipeline].is_flow


def inspect_folder(path: Path) -> FolderReport:
    """Check every part of a model folder. Raises `FolderRefused` with a sentence for the first thing wrong."""
    files = dict(_walk(Path(path)))
    root = Path(path)
    index = _read_json(root, "model_index.json", files, "The folder has no model_index.json: it is no diffusers model.")
    family, parts = _check_index(index)
    configs = {part: _read_config(root, part, files) for part in parts if not part.startswith("tokenizer")}
    headers = {part: _read_weights(root, part, family, files) for part in parts if family.parts[part].weights}
    CHECKS[family.pipeline](configs, headers)
    (check_flow_scheduler if family.is_flow else check_diffusion_scheduler)(configs["scheduler"])
    for part in parts:
        if part.startswith("tokenizer"):
            is_t5 = family.parts[part].kinds == T5_TOKENIZERS
            _check_tokenizer(root, part, files, configs[part.replace("tokenizer", "text_encoder")], is_clip=not is_t5)
    return _report(family, index, configs, headers, files)


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


def _check_index(index: Mapping[str, Any]) -> tuple[Family, list[str]]:
    """The pipeline's family, and those of its parts that the folder has."""
    kind = str(index.get("_class_name"))
    if kind not in FAMILIES:
        raise FolderRefused(f"The folder holds a “{kind}”; accepted are {' and '.join(FAMILIES)}.")
    family = FAMILIES[kind]
    for part, value in index.items():
        if part.startswith("_") or not isinstance(value, list):
            continue
        if len(value) != 2 or not all(each is None or isinstance(each, str) for each in value):
            raise FolderRefused(f"model_index.json describes “{part}” in a way that is not known.")
        library, kind = value
        if library is None and (part not in family.parts or part in family.optional):
            continue
        if part in family.parts:
            if library != family.parts[part].library or kind not in family.parts[part].kinds:
                raise FolderRefused(f"The model's {part} is “{library}.{kind}”, which is not accepted.")
        elif library not in UNUSED_PARTS.get(part, set()):
            raise FolderRefused(f"The model asks for “{library}.{kind}” as its {part}, which is not accepted.")
    missing = {part for part in family.parts if not isinstance(index.get(part), list) or index[part][0] is None}
    for part in family.parts:
        if part in missing - family.optional:
            raise FolderRefused(f"model_index.json names no {part}.")
    if missing and missing != family.optional:
        raise FolderRefused(f"Of {' and '.join(sorted(family.optional))} the folder must have both or neither.")
    return family, [part for part in family.parts if part not in missing]


def _read_config(root: Path, part: str, files: Mapping[str, int]) -> dict[str, Any]:
    name = f"{part}/scheduler_config.json" if part == "scheduler" else f"{part}/config.json"
    return _read_json(root, name, files, f"The model lacks {name}.")


def _read_weights(root: Path, part: str, family: Family, files: Mapping[str, int]) -> dict[str, TensorInfo]:
    """The tensors of a part by name, from one safetensors file or from the shards that an index lists."""
    weights = f"{part}/{family.parts[part].weights}"
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


def _check_tokenizer(
    root: Path, part: str, files: Mapping[str, int], text: Mapping[str, Any], *, is_clip: bool
) -> None:
    vocab_size = whole(text, "vocab_size", 49408, "The text encoder's config")
    if f"{part}/tokenizer.json" in files:
        content = _read_json(root, f"{part}/tokenizer.json", files, "")
        model, tokens = content.get("model"), content.get("added_tokens", [])
        vocab = model.get("vocab") if isinstance(model, dict) else None
        added = [token.get("id", 0) if isinstance(token, dict) else None for token in _list(tokens)]
    elif is_clip and f"{part}/vocab.json" in files and f"{part}/merges.txt" in files:
        vocab = _read_json(root, f"{part}/vocab.json", files, "")
        added = []
    else:
        other = f", or {part}/vocab.json with merges.txt" if is_clip else ""
        raise FolderRefused(f"The model lacks {part}/tokenizer.json{other}.")
    if not is_clip and isinstance(vocab, list):
        # T5 lists its pieces with their scores; a piece's place is its id.
        vocab = dict.fromkeys(map(str, range(len(vocab))), max(len(vocab) - 1, 0))
    check_ids([*vocab.values(), *added] if isinstance(vocab, dict) and vocab else [], vocab_size)
    if is_clip and f"{part}/tokenizer_config.json" in files:
        config = _read_json(root, f"{part}/tokenizer_config.json", files, "")
        longest = config.get("model_max_length")
        positions = whole(text, "max_position_embeddings", 77, "The text encoder's config")
        if isinstance(longest, int) and longest < 10**9 and longest > positions:
            raise FolderRefused(f"The tokenizer gives {longest} tokens, but the text encoder takes {positions}.")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _report(
    family: Family,
    index: Mapping[str, Any],
    configs: Mapping[str, Mapping[str, Any]],
    headers: Mapping[str, Mapping[str, TensorInfo]],
    files: Mapping[str, int],
) -> FolderReport:
    denoiser, vae, scheduler = configs[family.denoiser], configs["vae"], configs["scheduler"]
    text = configs["text_encoder"]
    if family is FLUX:
        latent_size, patch = flux_latent_size(vae), PACKING
    else:
        default = 64 if family is STABLE_DIFFUSION else 128
        latent_size = whole(denoiser, "sample_size", default, f"The config of the {family.denoiser}")
        patch = denoiser.get("patch_size", 2) if family.is_flow else 1
    resolution = check_resolution(latent_size, vae)
    coarsest = patch if family.is_flow else 2 ** (len(levels(denoiser, [320] * 4, "The U-Net's config")) - 1)
    dtype = headers[family.denoiser][FIRST_WEIGHTS[family.pipeline]].dtype
    return FolderReport(
        resolution=resolution,
        latent_channels=vae.get("latent_channels", 4),
        latent_size=latent_size,
        has_alpha=vae.get("out_channels", 3) == 4,
        prediction_type="velocity" if family.is_flow else scheduler.get("prediction_type", "epsilon"),
        scheduler=index["scheduler"][1],
        scheduler_config=scheduler,
        text_width=_text_width(family, configs),
        max_tokens=text.get("max_position_embeddings", 77),
        dtype=DTYPES.get(dtype, dtype),
        parameters={part: sum(math.prod(t.shape) for t in tensors.values()) for part, tensors in headers.items()},
        total_bytes=sum(files.values()),
        files=tuple(sorted(files)),
        pipeline=family.pipeline,
        denoiser=family.denoiser,
        patch_size=patch,
        image_tokens=(latent_size // patch) ** 2 if family.is_flow else 0,
        largest_side=_reach(denoiser) * (resolution // latent_size) if family is STABLE_DIFFUSION_3 else None,
        shape_step=resolution // latent_size * coarsest,
        t5_tokens=_t5_tokens(family, denoiser),
    )


def _text_width(family: Family, configs: Mapping[str, Mapping[str, Any]]) -> int:
    if family.is_flow:
        return int(configs[family.denoiser].get("joint_attention_dim", 4096))
    return sum(each.get("hidden_size", 512) for part, each in configs.items() if part.startswith("text_encoder"))


def _t5_tokens(family: Family, transformer: Mapping[str, Any]) -> int:
    if family is FLUX:
        return flux_tokens(transformer)
    return SD3_TOKENS if family is STABLE_DIFFUSION_3 else 0


def _reach(transformer: Mapping[str, Any]) -> int:
    """The largest side of latents for which the transformer has positions."""
    return int(transformer.get("pos_embed_max_size", 96) * transformer.get("patch_size", 2))
