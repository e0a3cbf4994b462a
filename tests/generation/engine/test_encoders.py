"""The hash by which two models are known to share an encoder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from generation.engine.encoders import hash_encoder
from generation.engine.folders import FolderRefused
from tests.rgb_models import without_alpha

WEIGHTS = Path("vae/diffusion_pytorch_model.safetensors")


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def change(folder: Path, name: str) -> None:
    """Change one number of one tensor."""
    weights = load_file(folder / WEIGHTS)
    weights[name] = weights[name].clone()
    weights[name].view(-1)[0] += 1
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def test_decoder_is_no_part_of_it(model: Path, folder: Path, tmp_path: Path) -> None:
    before = hash_encoder(model)
    assert hash_encoder(without_alpha(model, tmp_path / "rgb")) == before
    change(folder, "decoder.conv_in.weight")
    change(folder, "post_quant_conv.bias")
    assert hash_encoder(folder) == before


@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "quant_conv.bias"])
def test_every_weight_of_the_encoder_is(model: Path, folder: Path, name: str) -> None:
    change(folder, name)
    assert hash_encoder(folder) != hash_encoder(model)


def test_scale_of_the_latents_is(model: Path, folder: Path) -> None:
    path = folder / "vae" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "latents_mean": None, "sample_size": 64}))
    assert hash_encoder(folder) == hash_encoder(model)
    path.write_text(json.dumps({**config, "scaling_factor": 0.5}))
    assert hash_encoder(folder) != hash_encoder(model)


def test_shards_are_the_same_as_one_file(model: Path, folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in part}, folder / "vae" / f"part-{number}.safetensors")
    assert hash_encoder(folder) == hash_encoder(model)


def test_what_has_no_encoder_is_refused(folder: Path) -> None:
    save_file({"decoder.x": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(FolderRefused, match="no encoder"):
        hash_encoder(folder)
    (folder / WEIGHTS).write_bytes(b"short")
    with pytest.raises(FolderRefused, match="cannot be read"):
        hash_encoder(folder)
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError):
        hash_encoder(folder)
