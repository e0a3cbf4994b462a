"""Boxes to check, written at once: Django renders three templates for each, which for fifty people takes longer than all of their
page."""

from typing import Any

from django import forms
from django.forms.utils import flatatt
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString


class Checks(forms.CheckboxSelectMultiple):
    """Looks and behaves as its parent, for choices without groups."""

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> SafeString:
        own = self.build_attrs(self.attrs, attrs or {})
        key, css = own.pop("id", ""), own.get("class", "")
        chosen, of_each = set(self.format_value(value)), flatatt({"name": name, **own})
        boxes = format_html_join(
            "\n",
            '<div><label{}><input type="checkbox" value="{}"{}{}{}> {}</label></div>',
            (
                (
                    format_html(' for="{}_{}"', key, number) if key else "",
                    choice,
                    format_html(' id="{}_{}"', key, number) if key else "",
                    of_each,
                    " checked" if str(choice) in chosen else "",
                    label,
                )
                for number, (choice, label) in enumerate(self.choices)
            ),
        )
        outer = flatatt({name: text for name, text in (("id", key), ("class", css)) if text})
        return format_html("<div{}>{}\n</div>", outer, boxes)
