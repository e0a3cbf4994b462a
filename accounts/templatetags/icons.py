"""Icons of the sprite, written by a function: pages have dozens, and none needs a template or a look for its file of its own."""

from functools import lru_cache

from django import template
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.core.files.storage import storages
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag
def icon(name: str) -> SafeString:
    """The icon of this id in `static/vendor/lucide/sprite.svg`, hidden from screen readers: what it stands for is said beside it."""
    return _icon(storages["staticfiles"], name)


# Their storage is new where its settings change.
@lru_cache
def _icon(storage: StaticFilesStorage, name: str) -> SafeString:
    return format_html(
        '<svg class="icon" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        storage.url("vendor/lucide/sprite.svg"),
        name,
    )
