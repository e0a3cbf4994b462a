"""What a recipe's form asks about the shapes of images."""

from typing import Any

from django import forms

from training.engine.recipe import SHAPE_DEFAULTS


class ShapeFields(forms.Form):
    """The part of the recipe form that says how images are fitted."""

    shapes = forms.ChoiceField(
        choices=[
            ("square", "Squares: the middle of every image"),
            ("aspect", "Near each image's own aspect ratio"),
        ],
        required=False,
        label="Shapes of images",
        help_text="Wide and tall images keep more of themselves in a shape of their own, at no more pixels than the model's "
        "square (aspect-ratio buckets). Every image is drawn as often as before, but a pass holds one shape, so that a "
        "step takes more passes. “What it comes to” counts them.",
    )
    greatest_aspect = forms.FloatField(
        min_value=1,
        max_value=8,
        required=False,
        label="Greatest aspect ratio",
        help_text="Longer side by shorter side; what is longer is cropped to it. Empty: 2.",
    )
    never_enlarge = forms.BooleanField(
        required=False,
        label="Never enlarge images",
        help_text="A small image gets a smaller shape in place of being blown up.",
    )

    def shape_settings(self) -> dict[str, Any]:
        """What RunSettings takes, None for what the page hides or what is left empty."""
        if self.cleaned_data.get("shapes") != "aspect":
            return dict.fromkeys(SHAPE_DEFAULTS)
        return {
            "shapes": "aspect",
            "greatest_aspect": self.cleaned_data.get("greatest_aspect"),
            "never_enlarge": self.cleaned_data.get("never_enlarge") or None,
        }
