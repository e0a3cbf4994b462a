"""A random `StableDiffusion3Pipeline` folder for tests: the shape of the real one, some 60,000 weights in all its parts."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

from demo.tiny import WORDS
from demo.tokenizer import build_tokenizer

SIZE = 32


def build_tiny_sd3(out_dir: Path, seed: int = 0, *, shift: float = 3.0, with_t5: bool = False) -> Path:
    """Write a pipeline that draws 32 px images from latents of 16 x 16 x 4, and return its path. Weights are float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(WORDS)
        pipeline = StableDiffusion3Pipeline(
            transformer=_transformer(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
            vae=make_vae(),
            text_encoder=make_clip(tokenizer, 16),
            tokenizer=tokenizer,
            text_encoder_2=make_clip(tokenizer, 8),
            tokenizer_2=tokenizer,
            text_encoder_3=make_t5() if with_t5 else None,
            tokenizer_3=make_t5_tokenizer() if with_t5 else None,
        )
    pipeline.save_pretrained(out_dir, safe_serialization=True)
    return out_dir


def _transformer() -> SD3Transformer2DModel:
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=24,
        pos_embed_max_size=16,
    )
    # Untrained, the modulation is nearly off, and text and time would hardly be seen.
    for name, parameter in model.named_parameters():
        if "norm" in name and "linear.weight" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=SIZE,
        scaling_factor=1.5,
        shift_factor=0.1,
        force_upcast=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def make_clip(tokenizer, width: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2))


def make_t5_tokenizer() -> T5TokenizerFast:
    pieces = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS)]
    return T5TokenizerFast(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)], extra_ids=0)
