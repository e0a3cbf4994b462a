"""Pages of long lists: the newest rows first, and the next page by the number of the last row shown."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest


def newest_page(found: QuerySet[Any], request: HttpRequest, size: int) -> tuple[list[Any], str]:
    """Up to `size` rows of those (newest first, by primary key) before the one that `?before=` names, and the query of the next
    page, empty where there is none. What names no row is passed over."""
    before = request.GET.get("before", "")
    if before.isdecimal() and len(before) < 19:
        found = found.filter(pk__lt=int(before))
    rows = list(found[: size + 1])
    return rows[:size], f"?before={rows[size - 1].pk}" if len(rows) > size else ""
