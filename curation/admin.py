"""The room's rows for looking at: judgments and frozen versions are changed nowhere, campaigns and datasets on their pages."""

from django.contrib import admin

from curation.models import Adjudication, Approval, Campaign, CampaignEvent, Dataset, DatasetVersion, Judgment, Verdict
from generation.admin import ReadOnlyAdmin


@admin.register(Campaign)
class CampaignAdmin(ReadOnlyAdmin):
    list_display = ["slug", "name", "kind", "state", "rule", "overlap", "created_by", "created_at"]
    list_select_related = ["created_by"]
    search_fields = ["slug", "name"]


@admin.register(CampaignEvent)
class CampaignEventAdmin(ReadOnlyAdmin):
    list_display = ["campaign", "kind", "by", "at"]
    list_select_related = ["campaign", "by"]


@admin.register(Judgment)
class JudgmentAdmin(ReadOnlyAdmin):
    list_display = ["id", "item_id", "rater", "action", "answers", "late", "received_at"]
    list_select_related = ["rater"]
    raw_id_fields = ["assignment", "item", "supersedes"]


@admin.register(Adjudication)
class AdjudicationAdmin(ReadOnlyAdmin):
    list_display = ["id", "item_id", "by", "action", "answers", "at"]
    list_select_related = ["by"]
    raw_id_fields = ["item", "supersedes"]


@admin.register(Verdict)
class VerdictAdmin(ReadOnlyAdmin):
    list_display = ["item_id", "rule", "outcome", "judgments", "updated_at"]
    raw_id_fields = ["item"]


@admin.register(Dataset)
class DatasetAdmin(ReadOnlyAdmin):
    list_display = ["slug", "name", "kind", "created_by", "created_at"]
    list_select_related = ["created_by"]


@admin.register(DatasetVersion)
class DatasetVersionAdmin(ReadOnlyAdmin):
    list_display = ["dataset", "number", "entry_count", "content_hash", "frozen_by", "frozen_at"]
    list_select_related = ["dataset", "frozen_by"]


@admin.register(Approval)
class ApprovalAdmin(ReadOnlyAdmin):
    list_display = ["version", "act", "by", "at", "note"]
    list_select_related = ["version__dataset", "by"]
