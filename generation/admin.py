"""The room's rows for looking at; what is immutable is changed nowhere."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from generation.models import GenerationBatch, ModelPromotion, ModelVersion, Prompt, PromptSet, Sample


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows rows and changes none."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(PromptSet)
class PromptSetAdmin(ReadOnlyAdmin):
    list_display = ["slug", "version", "name", "prompt_count", "created_by", "created_at"]
    search_fields = ["slug", "name"]


@admin.register(Prompt)
class PromptAdmin(ReadOnlyAdmin):
    list_display = ["text", "bucket", "caption", "prompt_set", "position"]
    list_select_related = ["prompt_set"]
    search_fields = ["text", "caption"]


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyAdmin):
    list_display = ["number", "name", "origin", "parent", "content_hash", "created_at"]
    list_select_related = ["parent"]


@admin.register(ModelPromotion)
class ModelPromotionAdmin(ReadOnlyAdmin):
    list_display = ["model_version", "promoted_by", "promoted_at", "reason"]
    list_select_related = ["model_version", "promoted_by"]


@admin.register(GenerationBatch)
class GenerationBatchAdmin(ReadOnlyAdmin):
    list_display = ["id", "name", "model_version", "prompt_set", "sample_count", "created_by", "created_at"]
    list_select_related = ["model_version", "prompt_set", "created_by"]


@admin.register(Sample)
class SampleAdmin(ReadOnlyAdmin):
    list_display = ["id", "batch", "prompt", "index", "seed", "image"]
    list_select_related = ["batch", "prompt"]
