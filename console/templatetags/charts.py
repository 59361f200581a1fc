"""How the pages with figures write them."""

from django import template

from console.chart_words import percent
from console.templatetags.signalbox import NOTHING

register = template.Library()


@register.filter
def rate(value: float | None) -> str:
    """A share from 0 to 1 as 94.2%."""
    return NOTHING if value is None else percent(value)
