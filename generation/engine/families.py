"""The pipelines that a model folder may hold, and the parts that each is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

# Of these a model draws by steps of a noise schedule of betas; any of them may read the others' config.
DIFFUSION_SCHEDULERS = frozenset(
    {
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
)
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
CLIP_TOKENIZERS = frozenset({"CLIPTokenizer", "CLIPTokenizerFast"})
T5_TOKENIZERS = frozenset({"T5Tokenizer", "T5TokenizerFast"})


@dataclass(frozen=True)
class Part:
    """One part of a pipeline: its library, the classes that may stand there, and its weights file, if it has one."""

    library: str
    kinds: frozenset[str]
    weights: str | None = None


@dataclass(frozen=True)
class Family:
    """A pipeline class. `denoiser` is the part that is trained; the parts in `optional` may be missing, together.

    `fixed` are tensors in the denoiser's file that are no weights, and stay as they are. `latent_drawers` says for a
    person what draws latents, whoever decodes them.
    """

    pipeline: str
    denoiser: str
    parts: Mapping[str, Part]
    latent_drawers: str
    optional: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()

    @property
    def network(self) -> str:
        """The denoiser's class."""
        return next(iter(self.parts[self.denoiser].kinds))

    @property
    def is_flow(self) -> bool:
        """Whether it is drawn by following a velocity, and not by removing noise of a schedule of betas."""
        return FLOW_SCHEDULER in self.parts["scheduler"].kinds


def _network(library: str, kind: str) -> Part:
    name = "diffusion_pytorch_model" if library == "diffusers" else "model"
    return Part(library, frozenset({kind}), f"{name}.safetensors")


STABLE_DIFFUSION = Family(
    "StableDiffusionPipeline",
    "unet",
    {
        "unet": _network("diffusers", "UNet2DConditionModel"),
        "vae": _network("diffusers", "AutoencoderKL"),
        "text_encoder": _network("transformers", "CLIPTextModel"),
        "tokenizer": Part("transformers", CLIP_TOKENIZERS),
        "scheduler": Part("diffusers", DIFFUSION_SCHEDULERS),
    },
    latent_drawers="U-Net and text encoder",
)
# Podell et al. 2023 (arXiv 2307.01952): two text encoders beside each other, and a U-Net that is told the image's size.
STABLE_DIFFUSION_XL = Family(
    "StableDiffusionXLPipeline",
    "unet",
    {
        "unet": _network("diffusers", "UNet2DConditionModel"),
        "vae": _network("diffusers", "AutoencoderKL"),
        "text_encoder": _network("transformers", "CLIPTextModel"),
        "text_encoder_2": _network("transformers", "CLIPTextModelWithProjection"),
        "tokenizer": Part("transformers", CLIP_TOKENIZERS),
        "tokenizer_2": Part("transformers", CLIP_TOKENIZERS),
        "scheduler": Part("diffusers", DIFFUSION_SCHEDULERS),
    },
    latent_drawers="U-Net and text encoders",
)
# Esser et al. 2024 (arXiv 2403.03206): the third text encoder, T5, is by far the largest part and may be left out.
STABLE_DIFFUSION_3 = Family(
    "StableDiffusion3Pipeline",
    "transformer",
    {
        "transformer": _network("diffusers", "SD3Transformer2DModel"),
        "vae": _network("diffusers", "AutoencoderKL"),
        "text_encoder": _network("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_2": _network("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_3": _network("transformers", "T5EncoderModel"),
        "tokenizer": Part("transformers", CLIP_TOKENIZERS),
        "tokenizer_2": Part("transformers", CLIP_TOKENIZERS),
        "tokenizer_3": Part("transformers", T5_TOKENIZERS),
        "scheduler": Part("diffusers", frozenset({FLOW_SCHEDULER})),
    },
    latent_drawers="transformer and text encoders",
    optional=frozenset({"text_encoder_3", "tokenizer_3"}),
    fixed=frozenset({"pos_embed.pos_embed"}),
)
# Black Forest Labs 2024 (https://github.com/black-forest-labs/flux): CLIP gives one vector of the text, T5 the sequence.
FLUX = Family(
    "FluxPipeline",
    "transformer",
    {
        "transformer": _network("diffusers", "FluxTransformer2DModel"),
        "vae": _network("diffusers", "AutoencoderKL"),
        "text_encoder": _network("transformers", "CLIPTextModel"),
        "text_encoder_2": _network("transformers", "T5EncoderModel"),
        "tokenizer": Part("transformers", CLIP_TOKENIZERS),
        "tokenizer_2": Part("transformers", T5_TOKENIZERS),
        "scheduler": Part("diffusers", frozenset({FLOW_SCHEDULER})),
    },
    latent_drawers="transformer and text encoders",
)
FAMILIES = {family.pipeline: family for family in (STABLE_DIFFUSION, STABLE_DIFFUSION_XL, STABLE_DIFFUSION_3, FLUX)}
