"""What people ask of a corpus: a folder of shards on the server."""

from django import forms

from accounts.models import User
from generation.forms import LicenceForm
from training import corpora
from training.engine.shards import CorpusRefused
from training.models import Captions, Corpus


class CorpusForm(LicenceForm):
    """A folder below CORPORA_ROOT, under a name."""

    folder = forms.CharField(
        label="Folder of shards",
        max_length=500,
        widget=forms.TextInput(attrs={"list": "folders", "spellcheck": "false", "autocomplete": "off"}),
        help_text="Its .tar files are read where they lie, and none is kept here. Folders below it are not looked into.",
    )
    name = forms.CharField(max_length=120, help_text="What people call the corpus.")
    least_side = forms.IntegerField(
        min_value=1,
        max_value=100_000,
        initial=256,
        label="Shorter side at least",
        help_text="In pixels. Smaller images are left out. 1 takes all.",
    )
    captions = forms.ChoiceField(
        choices=Captions.choices,
        initial=Captions.NEEDED,
        # What programs that know of no choice send.
        required=False,
        widget=forms.RadioSelect,
        label="Images without a caption",
        help_text="Without words a model learns how images look, and nothing of what their prompts mean.",
    )

    field_order = ("folder", "name", "licence")

    def clean_captions(self) -> str:
        return self.cleaned_data["captions"] or Captions.NEEDED

    def clean_name(self) -> str:
        """Recipes and comparisons of runs call a corpus by its name alone."""
        name = str(self.cleaned_data["name"])
        if Corpus.objects.filter(name__iexact=name).exists():
            raise forms.ValidationError("Another corpus is called so. Choose another name.")
        return name

    def create(self, by: User) -> Corpus | None:
        """The registered corpus, or None with the refusal on the form."""
        cleaned = self.cleaned_data
        try:
            return corpora.register_corpus(
                name=cleaned["name"],
                folder=cleaned["folder"],
                least_side=cleaned["least_side"],
                captions=cleaned["captions"],
                licence=cleaned["licence"],
                by=by,
            )
        except CorpusRefused as refused:
            self.add_error("folder", refused.sentence)
            return None
