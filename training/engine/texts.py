"""What a pipeline conditions on for a caption: the sequence of its text encoders and, of most, one vector besides.

A sequence is [L, D] and a vector [P], both float32 on the CPU, and just what diffusers' own pipeline makes of the same
prompt when it draws.
"""

from collections.abc import Callable

import torch

from generation.engine.families import FLUX, STABLE_DIFFUSION_3, STABLE_DIFFUSION_XL
from generation.engine.pipeline import Pipeline

# The folders of all text encoders and tokenizers begin so.
TEXT_PARTS = ("text_encoder", "tokenizer")

Text = tuple[torch.Tensor, torch.Tensor | None]


def encode_text(pipeline: Pipeline, caption: str) -> Text:
    """(sequence, vector) of a caption; None where the denoiser takes no vector."""
    with torch.inference_mode():
        text, pooled = _ENCODERS.get(pipeline.report.pipeline, _stable_diffusion)(pipeline, caption)
    return text[0].float().cpu(), None if pooled is None else pooled[0].float().cpu()


def text_length(pipeline: Pipeline) -> int:
    """L as the denoiser takes it, which may be more than is encoded: the rest is zero. 0 where it takes no vector."""
    report = pipeline.report
    if report.pipeline == STABLE_DIFFUSION_3.pipeline:
        return int(pipeline.pipe.tokenizer_max_length) + report.t5_tokens
    if report.pipeline == STABLE_DIFFUSION_XL.pipeline:
        return int(pipeline.pipe.tokenizer.model_max_length)
    return report.t5_tokens


def text_way(pipeline: Pipeline) -> tuple[str | int, ...]:
    """What decides a caption's encoding besides the encoders' files: part of its key in the cache."""
    if pipeline.report.pipeline == STABLE_DIFFUSION_XL.pipeline:
        return ("zeros",) if pipeline.pipe.config.force_zeros_for_empty_prompt else ()
    return (pipeline.report.t5_tokens,) if pipeline.report.pipeline == FLUX.pipeline else ()


def _stable_diffusion(pipeline: Pipeline, caption: str) -> Text:
    pipe = pipeline.pipe
    tokens = pipe.tokenizer(
        [caption],
        padding="max_length",
        truncation=True,
        max_length=pipe.tokenizer.model_max_length,
        return_tensors="pt",
    )
    masked = getattr(pipe.text_encoder.config, "use_attention_mask", None)
    mask = tokens.attention_mask.to(pipeline.device) if masked else None
    return pipe.text_encoder(tokens.input_ids.to(pipeline.device), attention_mask=mask)[0], None


def _stable_diffusion_xl(pipeline: Pipeline, caption: str) -> Text:
    """The empty caption is what guidance leads away from, which is zero where the folder says so."""
    pipe = pipeline.pipe
    text, _, pooled, _ = pipe.encode_prompt(caption, device=pipeline.device, do_classifier_free_guidance=False)
    if not caption and pipe.config.force_zeros_for_empty_prompt:
        return torch.zeros_like(text), torch.zeros_like(pooled)
    return text, pooled


def _stable_diffusion_3(pipeline: Pipeline, caption: str) -> Text:
    """Without T5 the sequence is that of the CLIP encoders alone; the pipeline fills the rest with zeros."""
    pipe = pipeline.pipe
    text, _, pooled, _ = pipe.encode_prompt(
        caption,
        None,
        None,
        device=pipeline.device,
        do_classifier_free_guidance=False,
        max_sequence_length=pipeline.report.t5_tokens,
    )
    length = text.shape[1] if pipe.text_encoder_3 is not None else pipe.tokenizer_max_length
    return text[:, :length], pooled


def _flux(pipeline: Pipeline, caption: str) -> Text:
    text, pooled, _ = pipeline.pipe.encode_prompt(
        caption, None, device=pipeline.device, max_sequence_length=pipeline.report.t5_tokens
    )
    return text, pooled


_ENCODERS: dict[str, Callable[[Pipeline, str], Text]] = {
    STABLE_DIFFUSION_XL.pipeline: _stable_diffusion_xl,
    STABLE_DIFFUSION_3.pipeline: _stable_diffusion_3,
    FLUX.pipeline: _flux,
}
