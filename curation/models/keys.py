"""The keys that a person has chosen for rating."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now


class RatingKeys(models.Model):
    """Only what differs from the usual keys: {"commands": {command: key}, "answers": {kind: {question: {value: key}}}}."""

    rater = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="rating_keys")
    keys = models.JSONField(default=dict)
    updated_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"Keys of {self.rater_id}"
