"""What a call costs. Prices are USD per million tokens, costs whole micro-USD, rounded up."""

from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any

from .types import Price


def price_of(provider: str, model: str, override_input: Decimal | None = None, override_output: Decimal | None = None) -> Price | None:
    """The operator's price, each missing side filled from the catalogue. None: unpriced, which is not free.

    The first look into the catalogue of a process loads it (about 0.4 s): not for an event loop.
    """
    if override_input is not None and override_output is not None:
        return Price(override_input, override_output)
    listed = _listed(provider, model)
    if listed is None:
        return None
    return Price(
        listed.input if override_input is None else override_input,
        listed.output if override_output is None else override_output,
    )


def cost_micro(price: Price | None, tokens_in: int, tokens_out: int) -> int:
    """Micro-USD, rounded up. 0 when unpriced: the caller says that it is unknown, not that it is nothing."""
    if price is None:
        return 0
    exact = max(tokens_in, 0) * price.input + max(tokens_out, 0) * price.output
    return int(exact.to_integral_value(rounding=ROUND_CEILING))


@lru_cache(maxsize=512)
def _listed(provider: str, model: str) -> Price | None:
    """From the catalogue that genai-prices ships; nothing is fetched."""
    from datetime import UTC, datetime

    from genai_prices.data_snapshot import get_snapshot  # large: loaded by the first unpriced model, not by every process

    try:
        _, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    prices = found.get_prices(datetime.now(UTC))
    sides = _dearest(getattr(prices, "input_mtok", None)), _dearest(getattr(prices, "output_mtok", None))
    return Price(sides[0], sides[1]) if sides[0] is not None and sides[1] is not None else None


def _dearest(value: Any) -> Decimal | None:
    """Where long prompts cost more, the highest tier: a ceiling may stop a run early, never late."""
    steps = [value.base, *(tier.price for tier in value.tiers)] if hasattr(value, "tiers") else [value]
    prices = [step for step in steps if isinstance(step, Decimal)]
    return max(prices, default=None)
