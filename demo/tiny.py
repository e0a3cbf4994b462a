"""A pipeline folder of the same kind as the demo model, random and tiny: for tests that need the shape, not the art."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo.tokenizer import build_tokenizer

SIZE = 32
WORDS = ("a", "an", "of", "with", "plain", "die", "cut", "sticker", "cat", "dog", "heart", "face", "happy", "white")


def build_tiny(out_dir: Path, seed: int = 0) -> Path:
    """Write a random `StableDiffusionPipeline` folder that draws 32 px RGBA images, and return its path.

    The VAE encodes RGB and decodes RGBA (32 px to 8x8x4), the U-Net has some 0.3 M parameters and predicts v.
    The same `seed` gives the same weights. Takes about a second; weights are fp16 safetensors.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(WORDS)
        pipeline = assemble_pipeline(
            vae=make_vae(SIZE, channels=(8, 8, 16), groups=4),
            unet=make_unet(SIZE // 4, channels=(16, 32), cross_dim=32, layers=1, groups=8),
            text_encoder=make_text_encoder(tokenizer, hidden=32, layers=1, heads=2),
            tokenizer=tokenizer,
        )
    save_pipeline(pipeline, out_dir)
    return out_dir


def make_vae(size: int, *, channels: tuple[int, ...], groups: int) -> AutoencoderKL:
    """An autoencoder with 3 channels in, 4 out (the fourth is alpha) and 4 latent channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=4,
        latent_channels=4,
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=groups,
        # Convolutions alone: an attention over the middle would cost more than it gives at these sizes.
        mid_block_add_attention=False,
        sample_size=size,
        scaling_factor=1.0,
        force_upcast=False,
    )


def make_unet(
    size: int, *, channels: tuple[int, ...], cross_dim: int, layers: int, groups: int
) -> UNet2DConditionModel:
    """A denoiser of `size` x `size` x 4 latents, with cross-attention on all levels but the first."""
    lower = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=4,
        out_channels=4,
        block_out_channels=channels,
        layers_per_block=layers,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * lower),
        up_block_types=(*("CrossAttnUpBlock2D",) * lower, "UpBlock2D"),
        cross_attention_dim=cross_dim,
        attention_head_dim=4,
        norm_num_groups=groups,
    )


def make_text_encoder(tokenizer: CLIPTokenizer, *, hidden: int, layers: int, heads: int) -> CLIPTextModel:
    """A small CLIP text model that knows the special tokens of `tokenizer`."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=hidden * 4,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=hidden,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, so that a timestep of 900 has the log-SNR that the paper's T' = 900 has."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        # The leading spacing with an offset of one is what Stable Diffusion uses: 20 steps visit 951, 901, ... 1.
        steps_offset=1,
    )


def assemble_pipeline(
    *, vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The parts as one pipeline, on the shared noise schedule and without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_pipeline(pipeline: StableDiffusionPipeline, out_dir: Path) -> None:
    """Write the pipeline as fp16 safetensors."""
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        torch.nn.Module.half(part)
    pipeline.save_pretrained(out_dir, safe_serialization=True)
