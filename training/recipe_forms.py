"""What people ask of recipes: a table by its preset, and several values of T'."""

import uuid
from contextlib import suppress
from typing import Any

from django import forms

from curation.models import CampaignKind, DatasetKind, DatasetVersion
from generation.batches import SCHEDULER_LABELS
from generation.models import ModelVersion
from training.cadence_forms import CadenceFields
from training.engine.bands import PAPER_T_PRIME, Schedule, suggested_t_prime
from training.engine.flows import FLOW_DEFAULTS
from training.models import Corpus, Preset, Recipe
from training.recipe_rows import RecipeRefused
from training.recipes import DEFAULT_HYPERPARAMETERS, NOT_OF_A_DECODER, schedule_of, warm_up_problem
from training.row_forms import TableFields
from training.shape_forms import ShapeFields
from training.source_fields import SourceField, SourcesField, dataset_versions, ready_corpora

PRESETS = [
    (Preset.STYLE_TAILORING, "Style Tailoring: content where noise is high, style where it is low"),
    (Preset.DOMAIN, "Domain alignment: a corpus alone, over all noise levels"),
    (Preset.SEQUENTIAL, "Sequential: first content, then style, each over all noise levels"),
    (Preset.JOINT, "Joint: content and style together, over all noise levels"),
    (Preset.PROMPT, "Prompt alignment: content alone, over all noise levels"),
    (Preset.SINGLE, "Style alignment: style alone, over all noise levels"),
    (Preset.PREFERENCE, "Preference: pairs of a comparison, each image over the one that lost (Diffusion-DPO)"),
    (Preset.TRANSPARENCY, "Transparency decoder: the part that turns latents into pixels learns to cut stickers out"),
    (Preset.CUSTOM, "A table of your own: up to six sources, each with its band and weight"),
]
DECODER_SETTINGS = ("colour_weight", "alpha_weight", "backgrounds")
HYPERPARAMETERS = (
    "steps",
    "batch_size",
    "learning_rate",
    "method",
    "lora_rank",
    "seed",
    "caption_dropout",
    "min_snr_gamma",
    "ema_decay",
    "noise_offset",
    "timestep_sampling",
    "logit_mean",
    "logit_std",
    "flow_weighting",
    "holdout",
    "optimizer",
    "weight_decay",
    "warmup_steps",
    "gradient_accumulation",
    "mixture",
    "image_draws",
    "importance_weights",
    "gradient_checkpointing",
    "sharded",
    "max_grad_norm",
    "precision",
    "kernels",
    "dpo_beta",
    *DECODER_SETTINGS,
)


# Tables of several sources.
MIXING = (Preset.STYLE_TAILORING, Preset.JOINT, Preset.CUSTOM)
# Whose content a corpus may teach instead of a dataset version.
WITH_CONTENT = (Preset.STYLE_TAILORING, Preset.SEQUENTIAL, Preset.JOINT, Preset.PROMPT)


def suggested_sources() -> tuple[DatasetVersion | None, DatasetVersion | None]:
    """(content, style) to begin with: the newest versions that raters accepted for their content and for their style.

    Where one of them is missing, the newest other version takes its place.
    """
    versions = list(dataset_versions().prefetch_related("dataset__campaigns")[:50])
    judged_for_style = [
        version
        for version in versions
        if any(campaign.kind == CampaignKind.STYLE for campaign in version.dataset.campaigns.all())
    ]
    style = next(iter(judged_for_style or versions), None)
    others = [version for version in versions if version != style]
    content = next((version for version in others if version not in judged_for_style), next(iter(others), None))
    return content, style


def taught_content(
    preset: str | None, content: DatasetVersion | None, corpus: Corpus | None
) -> DatasetVersion | Corpus | None:
    """What a preset takes for content, of the two that may be chosen."""
    if preset == Preset.DOMAIN:
        return corpus
    return content or corpus if preset in WITH_CONTENT else None


class ScheduleSelect(forms.Select):
    """Model versions, those that match flows marked for the page, which hides what says nothing of the chosen one, and all
    with the values of T' that their schedules take."""

    def create_option(self, name: str, value: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        option = super().create_option(name, value, *args, **kwargs)
        version = getattr(value, "instance", None)
        if version is not None and version.is_flow:
            option["attrs"]["data-flow"] = ""
        if version is not None:
            with suppress(RecipeRefused):
                option["attrs"] |= _split_values(schedule_of(version))
        return option


def _split_values(schedule: Schedule) -> dict[str, str]:
    """For the page: between what T' lies, and what it is to begin with."""
    possible = schedule.t_primes
    return {
        "data-least-split": str(possible[0]),
        "data-most-split": str(possible[-1]),
        "data-paper-split": str(suggested_t_prime(schedule)),
    }


class RecipeForm(TableFields, CadenceFields, ShapeFields):
    """A table by its preset. Which fields matter depends on the preset; the page hides the others."""

    # A hidden field that a browser holds to be required would keep the form from being sent, without a word.
    use_required_attribute = False

    name = forms.CharField(max_length=120)
    preset = forms.ChoiceField(choices=PRESETS, widget=forms.RadioSelect, initial=Preset.STYLE_TAILORING, label="Kind")
    content = SourceField(
        queryset=DatasetVersion.objects.none(),
        label="Content",
        help_text="What is on the sticker: images that fit their prompts.",
        error_messages={"required": "Choose the dataset version that teaches content."},
    )
    corpus = SourceField(
        queryset=Corpus.objects.none(),
        required=False,
        label="Corpus",
        help_text="Images that nobody judged. Where a kind of recipe has content, it may come from a corpus instead: "
        "then leave Content empty.",
        error_messages={"required": "Choose the corpus that teaches the domain."},
    )
    style = SourceField(
        queryset=DatasetVersion.objects.none(),
        label="Style",
        help_text="How a sticker looks: images in the house style.",
        error_messages={"required": "Choose the dataset version that teaches style."},
    )
    pairs = SourceField(
        queryset=DatasetVersion.objects.none(),
        label="Pairs",
        help_text="A version of a dataset that was frozen from closed comparisons.",
        error_messages={"required": "Choose the dataset version of pairs that teaches preferences."},
    )
    stickers = SourcesField(
        queryset=DatasetVersion.objects.none(),
        widget=forms.CheckboxSelectMultiple,
        label="Stickers with transparency",
        help_text="Versions whose images are cut out. Every image is drawn as often as any other.",
        error_messages={"required": "Choose the dataset versions that teach transparency."},
    )
    schedule = forms.ModelChoiceField(
        queryset=ModelVersion.objects.none(),
        widget=ScheduleSelect,
        label="Noise schedule of",
        help_text="T' is counted on this version's schedule and stored as log-SNR, so it means the same noise on any other.",
    )
    drawn_with = forms.ChoiceField(
        choices=list(SCHEDULER_LABELS.items()),
        required=False,
        label="Count drawing steps as of",
        help_text="Only for the figures beside: it is chosen anew whenever something is drawn.",
    )
    # What may be chosen goes by the schedule, which `preset_tables` asks.
    t_prime = forms.IntegerField(
        initial=PAPER_T_PRIME,
        label="Split T'",
        help_text="Content trains where t > T', style where t ≤ T'. The paper takes 900 of Stable Diffusion's 1000.",
    )
    content_prompt_free = forms.BooleanField(
        required=False,
        label="Train this content without its captions",
        help_text="Its images teach how content looks, and nothing of what prompts mean.",
    )
    style_prompt_free = forms.BooleanField(
        required=False,
        label="Train this style without its captions",
        help_text="For images in the style whose captions say little.",
    )
    then = forms.ModelChoiceField(
        queryset=Recipe.objects.none(),
        required=False,
        empty_label="Nothing",
        label="Afterwards",
        help_text="A recipe that is trained next, on this one's result. It may be followed by another in turn.",
    )
    content_weight = forms.FloatField(min_value=0.001, max_value=1000, initial=1, required=False)
    style_weight = forms.FloatField(min_value=0.001, max_value=1000, initial=1, required=False)
    steps = forms.IntegerField(min_value=1, max_value=1_000_000, initial=DEFAULT_HYPERPARAMETERS["steps"])
    batch_size = forms.IntegerField(
        min_value=1, max_value=4096, initial=DEFAULT_HYPERPARAMETERS["batch_size"], label="Images a pass"
    )
    learning_rate = forms.FloatField(initial=DEFAULT_HYPERPARAMETERS["learning_rate"])
    method = forms.ChoiceField(
        choices=[
            ("full", "All weights of the U-Net or transformer"),
            ("lora", "LoRA, merged into the result"),
            ("dora", "DoRA, merged into the result"),
        ],
        help_text="LoRA and DoRA also leave their small file beside the result, for other tools.",
    )
    lora_rank = forms.IntegerField(min_value=1, max_value=1024, initial=16, required=False, label="Rank")
    seed = forms.IntegerField(min_value=0, max_value=2**63 - 1, initial=0)
    caption_dropout = forms.FloatField(
        min_value=0, max_value=1, initial=0.1, help_text="Share of captions left out, which guidance needs."
    )
    min_snr_gamma = forms.FloatField(
        required=False, label="Min-SNR γ", help_text="Loss weights after Hang et al. 2023; empty leaves all at 1."
    )
    ema_decay = forms.FloatField(
        required=False,
        label="Moving average",
        help_text="Decay of the averaged weights, such as 0.999; empty for none.",
    )
    dpo_beta = forms.FloatField(
        required=False,
        label="Hold on the parent (β)",
        help_text="The more, the less the result may differ from its parent. The paper takes 2000 to 5000; empty: 2000.",
    )
    colour_weight = forms.FloatField(
        min_value=0,
        max_value=1000,
        required=False,
        label="Weight of colour",
        help_text="How much it counts that colours are right on white and on other backgrounds. Empty: 1.",
    )
    alpha_weight = forms.FloatField(
        min_value=0.001,
        max_value=1000,
        required=False,
        label="Weight of alpha",
        help_text="How much it counts that the shape is right. Empty: 1.",
    )
    backgrounds = forms.IntegerField(
        min_value=0,
        max_value=16,
        required=False,
        label="Backgrounds besides white",
        help_text="On so many colours, drawn at random each time, an image is compared. Empty: 1.",
    )
    max_grad_norm = forms.FloatField(
        min_value=1e-6,
        max_value=1e6,
        required=False,
        label="Longest gradient",
        help_text="Longer ones are cut. Empty: 1.",
    )
    precision = forms.ChoiceField(
        choices=[
            ("auto", "bfloat16 on a GPU, float32 on a CPU"),
            ("fp32", "float32"),
            ("bf16", "bfloat16 around float32 weights"),
        ],
        required=False,
        label="Arithmetic",
        help_text="The weights are float32 in any case.",
    )
    kernels = forms.ChoiceField(
        choices=[
            ("auto", "What is fastest on a GPU, plain on a CPU"),
            ("probe", "What is fastest"),
            ("plain", "Plain"),
            ("channels_last", "Channels last"),
            ("compiled", "Compiled by torch"),
        ],
        required=False,
        label="Computed",
        help_text="What is fastest is tried on the run's first step. All give the same but for the last bits.",
    )
    gradient_checkpointing = forms.BooleanField(
        required=False,
        label="Save memory by computing twice",
        help_text="Gradient checkpointing: a step takes longer and holds fewer activations.",
    )
    sharded = forms.BooleanField(
        required=False,
        label="Part the model among the processes (shards)",
        help_text="For a model that one GPU does not hold: where several processes train a run together, each keeps a part of the "
        "weights, of their gradients and of what the optimizer remembers. Squares, AdamW and plain computing only.",
    )
    holdout = forms.FloatField(
        min_value=0,
        max_value=0.5,
        initial=DEFAULT_HYPERPARAMETERS["holdout"],
        required=False,
        label="Held out for validation",
        help_text="Share of each source's images, rounded down, that validation alone sees. 0 validates on what is trained.",
    )
    noise_offset = forms.FloatField(
        min_value=0,
        max_value=1,
        required=False,
        label="Noise offset",
        help_text="About 0.05 teaches very dark and very light images; empty for none.",
    )
    timestep_sampling = forms.ChoiceField(
        choices=[("logit_normal", "Logit-normal: the middle most often"), ("uniform", "Evenly")],
        required=False,
        label="Noise levels of a flow-matching model",
        help_text="How often training draws them. This and the next three say nothing of other models.",
    )
    logit_mean = forms.FloatField(
        min_value=-10, max_value=10, required=False, label="Mean of the logit", help_text="More is noisier. Empty: 0."
    )
    logit_std = forms.FloatField(
        min_value=0.05, max_value=10, required=False, label="Its standard deviation", help_text="Empty: 1."
    )
    flow_weighting = forms.ChoiceField(
        choices=[("none", "All equal"), ("sigma_sqrt", "1 / σ²"), ("cosmap", "CosMap")],
        required=False,
        label="Weights of a flow's losses",
    )
    lr_schedule = forms.ChoiceField(
        choices=[("constant", "Constant"), ("cosine", "Half a cosine, down to zero")],
        label="Schedule of the rate",
    )
    warmup_steps = forms.IntegerField(
        min_value=0, max_value=10_000_000, required=False, label="Warm-up steps", help_text="The rate rises over these."
    )
    optimizer = forms.ChoiceField(
        choices=[
            ("adamw", "AdamW"),
            ("adamw8bit", "AdamW in 8 bits, which takes less memory; needs bitsandbytes"),
            ("adafactor", "Adafactor, which takes less memory"),
        ],
        required=False,
        help_text="Adafactor's learning rate counts in shares of a weight's size, so it is a larger one; its paper takes 0.01 at most.",
    )
    weight_decay = forms.FloatField(min_value=0, max_value=1, required=False, help_text="Empty: 0.01.")
    gradient_accumulation = forms.IntegerField(
        min_value=1,
        max_value=4096,
        required=False,
        label="Passes a step",
        help_text="A step learns from so many times the images of one pass. Empty: 1.",
    )
    mixture = forms.ChoiceField(
        choices=[
            ("natural", "By noise level, as in the paper"),
            ("shares", "Fixed shares, by weight"),
        ],
        label="How sources mix",
        help_text="By noise level: a level is drawn first, then a source whose band holds it.",
    )
    image_draws = forms.ChoiceField(
        choices=[
            ("epochs", "In epochs"),
            ("replacement", "Each draw anew"),
        ],
        required=False,
        initial=DEFAULT_HYPERPARAMETERS["image_draws"],
        label="How images are drawn",
        help_text="In epochs each is seen once before any comes again, as in other trainers.",
    )
    importance_weights = forms.BooleanField(
        required=False,
        label="Weigh fixed shares back to the natural mixture",
        help_text="The draws are shared by weight, the loss is as if they were not.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Querysets of a field are shared by all forms; these belong to this one.
        self.fields["content"].queryset = dataset_versions()  # type: ignore[attr-defined]
        self.fields["style"].queryset = dataset_versions()  # type: ignore[attr-defined]
        self.fields["pairs"].queryset = dataset_versions(DatasetKind.PAIRS)  # type: ignore[attr-defined]
        self.fields["schedule"].queryset = ModelVersion.objects.all()  # type: ignore[attr-defined]
        self.fields["stickers"].queryset = dataset_versions()  # type: ignore[attr-defined]
        self.fields["corpus"].queryset = ready_corpora()  # type: ignore[attr-defined]
        self.fields["then"].queryset = Recipe.objects.all()  # type: ignore[attr-defined]

        if self.is_bound:
            preset = self.data.get("preset")
            neither = (Preset.PREFERENCE, Preset.TRANSPARENCY, Preset.CUSTOM)
            self.fields["content"].required = preset in WITH_CONTENT and not self.data.get("corpus")
            self.fields["corpus"].required = preset == Preset.DOMAIN
            self.fields["style"].required = preset not in (Preset.PROMPT, Preset.DOMAIN, *neither)
            self.fields["stickers"].required = preset == Preset.TRANSPARENCY
            # Of a field that the page hides nobody can see what is wrong.
            self.fields["caption_dropout"].required = preset != Preset.TRANSPARENCY
            self.fields["pairs"].required = preset == Preset.PREFERENCE
            self.fields["t_prime"].required = preset == Preset.STYLE_TAILORING

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("preset") in WITH_CONTENT and cleaned.get("content") and cleaned.get("corpus"):
            self.add_error("corpus", "Content comes from a dataset version or from a corpus: leave one of them empty.")
        if cleaned.get("preset") == Preset.CUSTOM:
            self.check_rows()
        else:
            self.forget_rows()
        if problem := warm_up_problem(cleaned):
            self.add_error("warmup_steps", problem)
        return cleaned

    def hyperparameters(self) -> dict[str, Any]:
        """What RunSettings takes, without what was left empty."""
        values = {key: self.cleaned_data.get(key) for key in HYPERPARAMETERS}
        preset = self.cleaned_data.get("preset")
        if preset == Preset.TRANSPARENCY:
            values["method"] = "full"
        if values["method"] == "full":
            values["lora_rank"] = None
        # Settings of another kind of recipe, which the page hides.
        hidden: dict[str, tuple[str, ...]] = {
            Preset.PREFERENCE: ("min_snr_gamma", "flow_weighting", "sharded", *DECODER_SETTINGS),
            Preset.TRANSPARENCY: ("dpo_beta", *NOT_OF_A_DECODER),
        }
        for key in hidden.get(preset or "", ("dpo_beta", *DECODER_SETTINGS)):
            values[key] = None
        schedule = self.cleaned_data.get("schedule")
        is_flow = schedule is not None and schedule.is_flow
        if is_flow:
            values["min_snr_gamma"] = values["noise_offset"] = None
        for key in FLOW_DEFAULTS:
            if not is_flow or (values["timestep_sampling"] == "uniform" and key.startswith("logit")):
                values[key] = None
        for switch in ("gradient_checkpointing", "sharded"):
            values[switch] = values[switch] or None
        if preset not in MIXING:
            # One source a table: there is nothing to mix.
            values["mixture"] = None if preset == Preset.TRANSPARENCY else "natural"
        if values["mixture"] != "shares":
            values["importance_weights"] = None
        values |= self.shape_settings() | self.cadence_settings()
        # Empty is none at all, which the preview says too.
        values["holdout"] = self.cleaned_data.get("holdout") or 0.0
        # `schedule` is the form's word for the version on whose noise schedule T' is counted.
        values["schedule"] = self.cleaned_data.get("lr_schedule")
        return {key: value for key, value in values.items() if value is not None and value != ""}

    def table(self) -> dict[str, Any]:
        """The arguments of `preset_tables` but the schedule, from whatever of the form is valid; of a table of one's own the rows
        as they are asked for."""
        cleaned = self.cleaned_data
        if cleaned.get("preset") == Preset.CUSTOM:
            return {"rows": self.asked_rows()}
        t_prime = cleaned.get("t_prime")
        # Of bands that do not overlap weights say something for fixed shares alone.
        weighed = cleaned.get("preset") != Preset.STYLE_TAILORING or cleaned.get("mixture") == "shares"
        return {
            "content": taught_content(cleaned.get("preset"), cleaned.get("content"), cleaned.get("corpus")),
            "pairs": cleaned.get("pairs"),
            "stickers": list(cleaned.get("stickers") or ()),
            "style": cleaned.get("style"),
            "content_prompt_free": bool(cleaned.get("content_prompt_free")),
            "style_prompt_free": bool(cleaned.get("style_prompt_free")),
            "t_prime": PAPER_T_PRIME if t_prime is None else t_prime,
            "content_weight": (weighed and cleaned.get("content_weight")) or 1.0,
            "style_weight": (weighed and cleaned.get("style_weight")) or 1.0,
        }


class SweepForm(forms.Form):
    """Several values of T' for one Style Tailoring recipe, each a recipe and a run of its own."""

    request_key = forms.UUIDField(widget=forms.HiddenInput, required=False)
    t_primes = forms.CharField(max_length=60, label="Values of T'", help_text="Two to six, separated by commas.")
    sweep_parent = forms.ModelChoiceField(queryset=ModelVersion.objects.none(), label="Parent")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["sweep_parent"].queryset = ModelVersion.objects.all()  # type: ignore[attr-defined]
        self.fields["request_key"].initial = uuid.uuid4

    def clean_t_primes(self) -> list[int]:
        parts = [part.strip() for part in self.cleaned_data["t_primes"].split(",") if part.strip()]
        if not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in parts):
            raise forms.ValidationError("Write whole numbers, separated by commas, such as 850, 900, 950.")
        return [int(part) for part in parts]
