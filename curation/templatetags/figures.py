"""Figures in cells of long tables, written by functions: a template of its own for each cell of fifty raters takes longer than all
the rest of their page."""

from datetime import datetime

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

from curation.statistics import Share

register = template.Library()
NOTHING = SafeString('<span class="muted">–</span>')
NOT_YET = SafeString('<span class="muted">not yet</span>')


@register.filter
def grouped(number: int) -> str:
    """ "12,345"."""
    return f"{number:,}"


@register.filter
def in_seconds(seconds: float | None) -> str:
    """ "2.3 s"; a dash where there is nothing."""
    return "–" if seconds is None else f"{seconds:.1f} s"


@register.filter
def with_interval(share: Share | None) -> SafeString:
    """ "61% [56, 66] n 120"; a dash where there is nothing."""
    # A variable that is not there comes as an empty text.
    if not share or share.interval is None:
        return NOTHING
    percent, low, high = (_whole(value) for value in (share.percent, *share.interval))
    return SafeString(f'{percent}% <span class="muted">[{low}, {high}]</span> <span class="muted">n {share.n}</span>')


@register.filter
def moment(at: datetime | None) -> SafeString:
    """When it was, which the page turns into how long ago; that it was not yet."""
    if at is None:
        return NOT_YET
    local = localtime(at)
    shown = f"{local.day} {local:%b %Y, %H:%M}"
    return format_html('<time datetime="{}" data-relative>{}</time>', local.isoformat(), shown)


def _whole(value: float) -> int:
    # Halves go up, as everywhere on the pages.
    return int(value + 0.5)
