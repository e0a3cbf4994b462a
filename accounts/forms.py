"""Forms about people."""

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms

from accounts.models import Role, Scope, User

ROLE_HELP = (
    "A rater judges stickers, a curator turns judgments into datasets, an operator imports models and starts runs, "
    "an auditor reads all and changes nothing."
)


if TYPE_CHECKING:
    PersonModelForm = forms.ModelForm[User]
else:
    # Django's own class takes no type argument at run time.
    PersonModelForm = forms.ModelForm


class InvitationForm(forms.Form):
    email = forms.EmailField(label="E-mail")
    roles = forms.MultipleChoiceField(choices=Role.choices, widget=forms.CheckboxSelectMultiple, help_text=ROLE_HELP)


class PersonForm(PersonModelForm):
    """A person's name, roles, and whether they may sign in."""

    roles = forms.MultipleChoiceField(
        choices=Role.choices, widget=forms.CheckboxSelectMultiple, help_text=ROLE_HELP, required=False
    )

    class Meta:
        model = User
        fields: ClassVar[list[str]] = ["name", "roles", "is_active"]
        labels: ClassVar[dict[str, str]] = {"is_active": "May sign in"}
        help_texts: ClassVar[dict[str, str]] = {"is_active": ""}

    def __init__(self, *args: Any, changed_by: User, **kwargs: Any) -> None:
        self.changed_by = changed_by
        super().__init__(*args, **kwargs)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if self.instance == self.changed_by:
            if not cleaned.get("is_active"):
                raise forms.ValidationError("You cannot close your own account.")
            if Role.OPERATOR in self.instance.roles and Role.OPERATOR not in cleaned.get("roles", []):
                raise forms.ValidationError("You cannot take the operator role from yourself; ask another operator.")
        return cleaned


class TokenForm(forms.Form):
    name = forms.CharField(max_length=80, required=False, help_text="Which program uses it.")
    scopes = forms.MultipleChoiceField(
        choices=Scope.choices, widget=forms.CheckboxSelectMultiple, label="It may", initial=[Scope.RATE]
    )
