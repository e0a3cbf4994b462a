"""What people ask of scores: where a campaign's come from."""

from typing import Any

from django import forms

from accounts.models import User
from curation.models import Campaign
from curation.scores import (
    MOST_BYTES,
    MOST_LINES,
    Scored,
    ScoresRefused,
    copy_scores,
    import_scores,
    known_measures,
    read_scores,
)

FILE = "file"


class ScoresForm(forms.Form):
    """Scores for the items of a campaign that is not open yet."""

    source = forms.ChoiceField(widget=forms.RadioSelect, initial=FILE, label="Where they come from")
    name = forms.CharField(
        required=False,
        max_length=120,
        help_text="What the file’s score says, for example “Sticker or not, by our model”.",
    )
    file = forms.FileField(
        required=False,
        label="CSV file",
        widget=forms.ClearableFileInput(attrs={"accept": ".csv,text/csv,text/plain"}),
        help_text=f"A line for each image: a sample’s number or the SHA-256 of its file, a comma, and its score. UTF-8, at most "
        f"{MOST_BYTES // 2**20} MB and {MOST_LINES:,} lines.",
    )

    # What is needed depends on the source, which the browser cannot know.
    use_required_attribute = False

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.campaign = campaign
        for name in ("name", "file"):
            # They are not shown where the scores are known already.
            self.fields[name].is_needed_where_shown = True  # type: ignore[attr-defined]
        self.measures = known_measures(campaign)
        measured = [(f"known:{name}", f"{name}: of {n:,} item{'' if n == 1 else 's'}") for name, n in self.measures]
        self.fields["source"].choices = [(FILE, "A file"), *measured]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        asked = super().clean() or {}
        if asked.get("source") == FILE:
            if not asked.get("name"):
                self.add_error("name", "Say what the score is.")
            if not asked.get("file") and "file" not in self.errors:
                self.add_error("file", "Choose a file.")
        return asked

    def save(self, by: User) -> Scored | None:
        """What became of them; None with an error on the form where they were refused."""
        asked = self.cleaned_data
        try:
            if asked["source"] != FILE:
                return copy_scores(self.campaign, asked["source"].removeprefix("known:"), by=by)
            lines = read_scores(asked["file"].read(MOST_BYTES + 1))
            return import_scores(self.campaign, lines, name=asked["name"], by=by)
        except ScoresRefused as refused:
            self.add_error(None, refused.args[0])
            return None
