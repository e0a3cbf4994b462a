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
        widget = self.get_context(name, value, attrs)["widget"]
        boxes = format_html_join(
            "\n",
            '<div><label{}><input type="checkbox" name="{}" value="{}"{}> {}</label></div>',
            (
                (
                    flatatt({"for": box["attrs"].get("id")}),
                    box["name"],
                    box["value"],
                    flatatt(box["attrs"]),
                    box["label"],
                )
                for _, group, _ in widget["optgroups"]
                for box in group
            ),
        )
        own = {"id": widget["attrs"].get("id"), "class": widget["attrs"].get("class")}
        return format_html("<div{}>{}\n</div>", flatatt({key: text for key, text in own.items() if text}), boxes)
