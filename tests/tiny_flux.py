"""A random `FluxPipeline` folder for tests: the shape of the real one, tiny in all its parts."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel

from demo.tiny import WORDS, make_text_encoder
from demo.tokenizer import build_tokenizer
from tests.tiny_sd3 import make_t5, make_t5_tokenizer, make_vae


def build_tiny_flux(out_dir: Path, seed: int = 0, *, is_distilled: bool = True) -> Path:
    """Write a pipeline that draws 32 px images from latents of 16 x 16 x 4, and return its path. Weights are float32.

    Like Flux dev, `is_distilled` takes its guidance as an input and shifts its steps by the image's size; else it is like
    schnell and does neither.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(WORDS)
        text_encoder: CLIPTextModel = make_text_encoder(tokenizer, hidden=16, layers=1, heads=2)
        pipeline = FluxPipeline(
            transformer=_transformer(is_distilled),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=is_distilled),
            vae=make_vae(),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=make_t5(),
            tokenizer_2=make_t5_tokenizer(),
        )
    pipeline.save_pretrained(out_dir, safe_serialization=True)
    return out_dir


def _transformer(is_distilled: bool) -> FluxTransformer2DModel:
    model = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 2, 2),
        guidance_embeds=is_distilled,
    )
    for name, parameter in model.named_parameters():
        if "norm" in name and "linear.weight" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model
