"""Boxes to check, written at once: Django renders three templates for each, which for fifty people takes longer than all of their
page."""

from typing import Any

from django import forms
from django.forms.utils import flatatt
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString


class Checks(forms.CheckboxSelectMultiple):
    """Looks and behaves as its parent, for choices without groups."""

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> SafeString:
        own = self.build_attrs(self.attrs, attrs or {})
        key, css = conditional_escape(own.pop("id", "")), own.get("class", "")
        chosen, of_each = set(self.format_value(value)), flatatt({"name": name, **own})
        boxes = "\n".join(
            "<div><label"
            + (f' for="{key}_{number}"' if key else "")
            + f'><input type="checkbox" value="{conditional_escape(str(choice))}"'
            + (f' id="{key}_{number}"' if key else "")
            + of_each
            + (" checked" if str(choice) in chosen else "")
            + f"> {conditional_escape(str(label))}</label></div>"
            for number, (choice, label) in enumerate(self.choices)
        )
        outer = flatatt({name: text for name, text in (("id", key), ("class", css)) if text})
        return SafeString(f"<div{outer}>{boxes}\n</div>")
