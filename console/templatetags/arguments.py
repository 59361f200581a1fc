"""How arguments that a model wrote stand on a page: nothing in them is invisible, and nothing passes for something else."""

import unicodedata

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from console import lookalikes

from .signalbox import visible

register = template.Library()


@register.filter
def spelled(value: object) -> SafeString:
    """As `visible`, and letters that pass for others are marked with their number beside them."""
    out: list[str] = []
    for piece, twin in lookalikes.marked("" if value is None else str(value)):
        out.append(letter(piece) if twin else visible(piece))
    return mark_safe("".join(out))  # every part above is escaped


def letter(character: str) -> SafeString:
    name = unicodedata.name(character, "letter").lower()
    return format_html('<span class="twin" title="{}">{}<span class="inv">U+{}</span></span>', name, character, f"{ord(character):04X}")
