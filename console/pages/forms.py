"""What the forms of several pages share."""

from typing import Any

from django import forms

INPUT = {"class": "input"}


def marked(form: forms.Form) -> forms.Form:
    """Fields with errors point to them, for those who do not see them."""
    for name in form.errors:
        if name in form.fields:
            form.fields[name].widget.attrs |= {"aria-invalid": "true", "aria-describedby": f"{form[name].auto_id}_error"}
    return form


def refuse(form: forms.Form, field: Any, message: str) -> None:
    """On the field that was refused, or on the whole form."""
    form.add_error(field if field in form.fields else None, message)
