"""What recipes can learn from, and the form fields that choose of it."""

from django import forms
from django.db.models import QuerySet

from curation.models import ApprovalAct, DatasetKind, DatasetVersion
from training.models import Corpus
from training.recipe_rows import Data


class SourceField(forms.ModelChoiceField):  # type: ignore[type-arg]
    def label_from_instance(self, obj: Data) -> str:
        return label_of(obj)


class SourcesField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]
    def label_from_instance(self, obj: Data) -> str:
        return label_of(obj)


def label_of(data: Data) -> str:
    """ "Faces v3: 120 images"."""
    holds_pairs = isinstance(data, DatasetVersion) and data.dataset.kind == DatasetKind.PAIRS
    # Only the versions of a form's choices know it.
    waits = isinstance(data, DatasetVersion) and getattr(data, "approval", ApprovalAct.APPROVED) != ApprovalAct.APPROVED
    count = f"{data.entry_count} {'pair' if holds_pairs else 'image'}{'' if data.entry_count == 1 else 's'}"
    return f"{data}{' (not approved)' if waits else ''}: {count}"


def ready_corpora() -> QuerySet[Corpus]:
    """The corpora that can be trained on, the newest first."""
    return Corpus.objects.exclude(content_hash="").filter(trouble="")


def dataset_versions(kind: str = DatasetKind.IMAGES) -> QuerySet[DatasetVersion]:
    """The frozen versions of one kind, the newest first."""
    versions = DatasetVersion.objects.with_approval().filter(entry_count__gt=0, dataset__kind=kind)
    return versions.select_related("dataset").order_by("-frozen_at", "-pk")
