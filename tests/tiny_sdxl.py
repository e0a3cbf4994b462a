"""A random `StableDiffusionXLPipeline` folder for tests: the shape of the real one, tiny in all its parts."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

from demo.tiny import WORDS, make_text_encoder
from demo.tokenizer import build_tokenizer
from tests.tiny_sd3 import make_clip

SIZE = 32


def build_tiny_sdxl(out_dir: Path, seed: int = 0, *, forces_zeros: bool = True) -> Path:
    """Write a pipeline that draws 32 px images from latents of 16 x 16 x 4, and return its path. Weights are float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(WORDS)
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(),
            unet=_unet(),
            text_encoder=make_text_encoder(tokenizer, hidden=16, layers=2, heads=2),
            tokenizer=tokenizer,
            text_encoder_2=make_clip(tokenizer, 8),
            tokenizer_2=tokenizer,
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                timestep_spacing="leading",
            ),
            force_zeros_for_empty_prompt=forces_zeros,
            add_watermarker=False,
        )  # fmt: skip
    pipeline.save_pretrained(out_dir, safe_serialization=True)
    return out_dir


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=SIZE,
        scaling_factor=1.2,
        force_upcast=False,
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=24,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=8 + 6 * 4,
    )
