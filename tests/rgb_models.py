"""Models that draw no transparency, made from those that do."""

import shutil
from pathlib import Path

from diffusers import AutoencoderKL

CONV_OUT = ("decoder.conv_out.weight", "decoder.conv_out.bias")


def without_alpha(folder: Path, out: Path) -> Path:
    """A copy of a model folder whose decoder lost its fourth channel, and is RGB like most in the world."""
    shutil.copytree(folder, out)
    old = AutoencoderKL.from_pretrained(folder / "vae")
    new = AutoencoderKL.from_config({**old.config, "out_channels": 3})
    weights = old.state_dict()
    new.load_state_dict(weights | {name: weights[name][:3] for name in CONV_OUT})
    new.half().save_pretrained(out / "vae")
    return out
