"""What people ask of this room: prompt sets, batches, imports, promotions."""

from typing import Any

from django import forms

from accounts.models import User
from generation import batches, combinations, model_versions, prompt_sets
from generation.engine.folder_checks import MAX_SIDE
from generation.engine.requests import MAX_SEED
from generation.models import GenerationBatch, ModelVersion, PromptSet
from jobs.models import Job

# What a model really draws is asked of the model; a number of hundreds of digits could not even be estimated with.
MAX_FIELD_SIDE = 4 * MAX_SIDE


class PromptSetForm(forms.Form):
    """Prompts pasted or uploaded; with a `parent`, those of its next version."""

    name = forms.CharField(max_length=120, help_text="What the set is about, for example “Emotions”.")
    text = forms.CharField(
        label="Prompts",
        strip=False,
        error_messages={"required": "Paste some prompts, or choose a file."},
        widget=forms.Textarea(attrs={"rows": 16, "spellcheck": "false"}),
        help_text=(
            "One prompt a line; a line “# happy” puts those after it into the bucket happy. Or a table with a first "
            "line “prompt,bucket,caption”. An image is drawn with its prompt, but judged by and taught under its caption: "
            "what people will type once the model has learned the look. Without one, the prompt is the caption."
        ),
    )
    file = forms.FileField(
        label="Or a CSV file",
        required=False,
        widget=forms.ClearableFileInput(attrs={"accept": ".csv,.txt,text/csv,text/plain"}),
        help_text="UTF-8, at most 4 MB and 10,000 prompts. It replaces what is pasted above.",
    )
    leave_out_repeats = forms.BooleanField(
        required=False, label="Leave out prompts that repeat an earlier line", help_text=""
    )
    note = forms.CharField(
        max_length=300, required=False, help_text="Where they come from, or what this version changes."
    )

    # The text is needed only where there is no file, which the browser cannot know.
    use_required_attribute = False

    def __init__(self, *args: Any, parent: PromptSet | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parent = parent
        if parent:
            del self.fields["name"]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if upload := cleaned.get("file"):
            self.errors.pop("text", None)
            try:
                cleaned["text"] = prompt_sets.decode_upload(upload.read(prompt_sets.MAX_BYTES + 1))
                if upload.name.lower().endswith((".csv", ".tsv")):
                    prompt_sets.check_table(cleaned["text"])
            except prompt_sets.PromptsRefused as refused:
                self.add_error("file", refused.problems)
        elif "text" in cleaned and not cleaned["text"].strip():
            self.add_error("text", "Paste some prompts, or choose a file.")
        return cleaned

    def create(self, by: User) -> PromptSet | None:
        """The new version, or None with the problems on the form."""
        cleaned = self.cleaned_data
        try:
            return prompt_sets.create_prompt_set(
                name=cleaned.get("name", ""),
                text=cleaned["text"],
                note=cleaned["note"],
                leave_out_repeats=cleaned["leave_out_repeats"],
                parent=self.parent,
                by=by,
            )
        except prompt_sets.PromptsRefused as refused:
            self.add_error("file" if cleaned.get("file") else "text", refused.problems)
            return None


class PromptSetChoice(forms.ModelChoiceField):  # type: ignore[type-arg]
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj} ({obj.prompt_count:,} prompts)"


class ModelChoice(forms.ModelChoiceField):  # type: ignore[type-arg]
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj} ({obj.image_size} px)"


class BatchForm(forms.Form):
    """A request to draw k images of each prompt of a set."""

    prompt_set = PromptSetChoice(queryset=PromptSet.objects.none(), empty_label="Choose a set")
    model_version = ModelChoice(queryset=ModelVersion.objects.none(), label="Model", empty_label="Choose a model")
    images_per_prompt = forms.IntegerField(
        label="Images of each prompt", min_value=1, max_value=batches.MAX_SAMPLES, initial=4
    )
    seed = forms.IntegerField(
        min_value=0,
        max_value=MAX_SEED,
        initial=0,
        help_text="The same request with the same seed draws the same pixels.",
    )
    steps = forms.IntegerField(min_value=1, max_value=batches.MAX_STEPS, initial=20)
    guidance = forms.FloatField(
        min_value=0,
        max_value=batches.MAX_GUIDANCE,
        initial=4.0,
        help_text="How closely it follows the prompt; 1 is none.",
    )
    scheduler = forms.ChoiceField(choices=list(batches.SCHEDULER_LABELS.items()), initial="ddim")
    negative_prompt = forms.CharField(max_length=1000, required=False, help_text="What it should keep away from.")
    width = forms.IntegerField(
        required=False, min_value=8, max_value=MAX_FIELD_SIDE, help_text="Pixels; empty for the model's own."
    )
    height = forms.IntegerField(
        required=False, min_value=8, max_value=MAX_FIELD_SIDE, help_text="Pixels; empty for the model's own."
    )
    name = forms.CharField(max_length=120, required=False, help_text="Empty for the set's and the model's names.")

    ROWS = (("prompt_set", "model_version"), ("images_per_prompt", "seed"))
    DETAIL_ROWS = (("steps", "guidance", "scheduler"), ("width", "height"), ("negative_prompt",), ("name",))

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sets: Any = self.fields["prompt_set"]
        sets.queryset = PromptSet.objects.visible_to(user).order_by("slug", "-version")
        models: Any = self.fields["model_version"]
        models.queryset = ModelVersion.objects.visible_to(user).order_by("-number")

    def clean_seed(self) -> int:
        seed: int | None = self.cleaned_data["seed"]
        return seed or 0

    @property
    def rows(self) -> list[list[forms.BoundField]]:
        return [[self[name] for name in row] for row in self.ROWS]

    @property
    def detail_rows(self) -> list[list[forms.BoundField]]:
        return [[self[name] for name in row] for row in self.DETAIL_ROWS]

    @property
    def has_detail_errors(self) -> bool:
        return any(name in self.errors for row in self.DETAIL_ROWS for name in row)

    def create(self, by: User) -> GenerationBatch | None:
        """The queued batch, or None with the problems on the form."""
        try:
            return batches.request_batch(by=by, **self.cleaned_data)
        except batches.BatchRefused as refused:
            for field, sentence in refused.problems.items():
                self.add_error(field, sentence)
            return None


class LicenceForm(forms.Form):
    """Under which licence something is, in words."""

    licence = forms.CharField(
        max_length=200,
        required=False,
        help_text="Its SPDX identifier where it has one, such as Apache-2.0 or CC-BY-4.0, else its name. Empty: not known.",
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
    )


class ImportForm(LicenceForm):
    """A diffusers folder on the server."""

    path = forms.CharField(
        label="Folder on the server",
        max_length=1000,
        widget=forms.TextInput(attrs={"list": "importable", "spellcheck": "false", "autocomplete": "off"}),
    )
    name = forms.CharField(max_length=120, help_text="What people call the model.")
    note = forms.CharField(max_length=300, required=False, help_text="Where it comes from.")

    field_order = ("path", "name", "licence", "note")

    def create(self, by: User) -> Job | None:
        """The queued import, or None with the refusal on the form."""
        cleaned = self.cleaned_data
        try:
            return model_versions.enqueue_import(
                cleaned["path"], name=cleaned["name"], note=cleaned["note"], licence=cleaned["licence"], by=by
            )
        except model_versions.ImportRefused as refused:
            self.add_error("path", refused.sentence)
            return None


class DecoderForm(forms.Form):
    """The version whose decoder this one borrows."""

    decoder_of = forms.ModelChoiceField(
        queryset=ModelVersion.objects.none(),
        label="Decoder of",
        help_text="A version that draws transparency and shares this one's encoder.",
    )

    def __init__(self, *args: Any, version: ModelVersion, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["decoder_of"].queryset = combinations.decoders_for(version)  # type: ignore[attr-defined]

    @property
    def has_choice(self) -> bool:
        return bool(self.fields["decoder_of"].queryset.exists())  # type: ignore[attr-defined]


class PromotionForm(forms.Form):
    reason = forms.CharField(max_length=300, required=False, help_text="Why this version, for those who ask later.")
