"""Shares, changes and names of limits as pages about releases write them."""

from django import template

from console import release_figures

register = template.Library()


@register.filter
def percent(share: float) -> str:
    """0.05 as 5%."""
    return release_figures.percent(share)


@register.filter
def signed_percent(change: float) -> str:
    """0.12 as +12%."""
    return ("+" if change > 0 else "") + release_figures.percent(change)


@register.filter
def spaced(name: str) -> str:
    """max_steps as Max steps, run_s as Run, in seconds."""
    words = name.removesuffix("_s").replace("_usd", ", in USD").replace("_", " ").capitalize().replace("usd", "USD")
    return f"{words}, in seconds" if name.endswith("_s") else words
