"""Which model folders are accepted, and the sentence for each that is not."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generation.engine.folders import FolderRefused, hash_folder, hash_manifest, inspect_folder


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def change_json(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_good_folder_is_reported(model: Path) -> None:
    report = inspect_folder(model)
    assert (report.resolution, report.latent_channels, report.latent_size, report.has_alpha) == (32, 4, 8, True)
    assert (report.prediction_type, report.scheduler, report.dtype) == ("v_prediction", "DDIMScheduler", "float16")
    assert set(report.parameters) == {"unet", "vae", "text_encoder"}
    assert report.total_bytes == sum(path.stat().st_size for path in model.rglob("*") if path.is_file())


def cut(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def garble(folder: Path) -> None:
    (folder / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 100)


def link(folder: Path) -> None:
    (folder / "vae/config.json").rename(folder / "elsewhere.json")
    (folder / "vae/config.json").symlink_to(folder / "elsewhere.json")


def escape(folder: Path) -> None:
    change = {"weight_map": {"conv_in.weight": "../../secret.safetensors"}}
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(change))


def remove(name: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return act


def add(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(b"x") and None


def change(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder, name, **changes)


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def write_header(header: str) -> Callable[[Path], None]:
    content = struct.pack("<Q", len(header)) + header.encode() + b"\0" * 4
    return lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(content) and None


def name_badly(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).touch()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (add("unet/diffusion_pytorch_model.bin"), r"unet/diffusion_pytorch_model\.bin may carry code"),
        (add("model.CKPT"), r"model\.CKPT may carry code"),
        (add("pipeline.py"), r"pipeline\.py is Python code"),
        (link, r"vae/config\.json is a link"),
        (escape, r"lacks unet/\.\./\.\./secret\.safetensors"),
        (cut, "cut off"),
        (garble, "no whole safetensors file"),
        (remove("model_index.json"), "no model_index.json"),
        (remove("vae"), "lacks vae/config.json"),
        (remove("unet/diffusion_pytorch_model.safetensors"), "lacks unet/diffusion_pytorch_model.safetensors"),
        (remove("tokenizer/tokenizer.json"), "lacks tokenizer/tokenizer.json"),
        (change("model_index.json", _class_name="KolorsPipeline"), "KolorsPipeline"),
        (change("model_index.json", unet=["my_module", "MyUNet"]), "my_module.MyUNet"),
        (change("model_index.json", scheduler=["diffusers", "MyScheduler"]), "diffusers.MyScheduler"),
        (change("model_index.json", extra=["os", "system"]), "os.system"),
        (change("text_encoder/config.json", auto_map={"AutoModel": "x.Y"}), "code of its own"),
        (change("unet/config.json", cross_attention_dim=64), "width 64, but the text encoder gives 32"),
        (change("unet/config.json", in_channels=9), "9 in channels, but the VAE's latents have 4"),
        (change("vae/config.json", latent_channels=16), "VAE's latents have 16"),
        (change("vae/config.json", out_channels=3), "do not fit its config"),
        (change("text_encoder/config.json", vocab_size=40), "do not fit its config"),
        (change("text_encoder/config.json", max_position_embeddings=16), "32 tokens, but the text encoder takes 16"),
        (change("scheduler/scheduler_config.json", beta_schedule="sigmoid"), "sigmoid"),
        (change("scheduler/scheduler_config.json", _class_name="Other"), "Other"),
        (change("unet/config.json", sample_size="big"), "no usable sample_size"),
        (change("unet/config.json", sample_size=10**30), "px a side; at most 4,096 px"),
        (change("unet/config.json", layers_per_block=10**7), "no usable layers_per_block"),
        (change("unet/config.json", transformer_layers_per_block=[[10**7]]), "no usable transformer_layers_per_block"),
        (change("unet/config.json", block_out_channels=[]), "no usable block_out_channels"),
        (change("unet/config.json", block_out_channels={"0": 1}), "no usable block_out_channels"),
        (change("unet/config.json", cross_attention_dim=[[]]), "expects text of width"),
        (change("vae/config.json", block_out_channels=[32] * 60), "no usable block_out_channels"),
        (change("text_encoder/config.json", num_hidden_layers=10**7), "no usable num_hidden_layers"),
        (change("scheduler/scheduler_config.json", num_train_timesteps=10**9), "no usable num_train_timesteps"),
        (change("scheduler/scheduler_config.json", prediction_type=[]), "predicts"),
        (change("scheduler/scheduler_config.json", _class_name={}), "is not known"),
        (change("model_index.json", scheduler=None), "names no scheduler"),
        (change("model_index.json", unet=["diffusers", []]), "in a way that is not known"),
        (change("model_index.json", safety_checker=[[], {}]), "in a way that is not known"),
        (change("tokenizer/tokenizer.json", model=[]), "no usable vocabulary"),
        (change("tokenizer/tokenizer.json", added_tokens=[None]), "no usable vocabulary"),
        (write("unet/config.json", "[" * 100_000), "not readable JSON"),
        (write("model_index.json", '{"a":' * 100_000), "not readable JSON"),
        (write_header('{"a":' * 100_000), "header is not JSON"),
        (
            write_header('{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 0]}}'),
            "tensor a is not described",
        ),
        (write_header('{"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}'), "does not fit its shape"),
        (name_badly, "characters that cannot be shown"),
    ],
)
def test_bad_folders_are_refused_with_a_sentence(folder: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    spoil(folder)
    with pytest.raises(FolderRefused, match=sentence) as refused:
        inspect_folder(folder)
    assert refused.value.sentence.endswith(".")


def test_tokenizer_larger_than_the_embedding_is_refused(folder: Path) -> None:
    path = folder / "tokenizer/tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["enormous"] = 10**6
    path.write_text(json.dumps(content))
    with pytest.raises(FolderRefused, match="1000001 tokens"):
        inspect_folder(folder)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    for act in (inspect_folder, hash_folder):
        with pytest.raises(FolderRefused, match="not a folder"):
            act(tmp_path / "nowhere")


def test_hash_names_contents_and_nothing_else(model: Path, folder: Path) -> None:
    content_hash, manifest = hash_folder(folder)
    assert (content_hash, manifest) == hash_folder(model)
    assert hash_manifest(dict(reversed(manifest.items()))) == content_hash
    (folder / "unet/config.json").touch()
    assert hash_folder(folder)[0] == content_hash
    (folder / "unet/config.json").rename(folder / "unet/konfig.json")
    assert hash_folder(folder)[0] != content_hash
