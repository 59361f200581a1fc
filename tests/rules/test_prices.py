"""What calls cost, to the micro-USD."""

import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.inference.prices import cost_micro, price_of
from runs.inference.types import Price

money = st.decimals(min_value=0, max_value=1000, places=6)
counts = st.integers(min_value=0, max_value=10_000_000)


@pytest.mark.mission("P5.1")
def test_the_operators_price_goes_before_the_catalogue():
    assert price_of("openai", "gpt-4o-mini", Decimal("1"), Decimal("2")) == Price(Decimal("1"), Decimal("2"))


def test_a_missing_side_comes_from_the_catalogue():
    assert price_of("openai", "gpt-4o-mini", Decimal("9"), None) == Price(Decimal("9"), Decimal("0.6"))
    assert price_of("openai", "gpt-4o-mini", None, Decimal("9")) == Price(Decimal("0.15"), Decimal("9"))


def test_a_price_of_nothing_is_a_price():
    assert price_of("openai", "sim-small", Decimal(0), Decimal(0)) == Price(Decimal(0), Decimal(0))


@pytest.mark.parametrize("model", ["sim-small", "", "\x00", "gpt-4o-mini-nonsense", "text-embedding-3-small", "x" * 10_000])
@pytest.mark.parametrize("provider", ["openai", "anthropic", "nobody"])
def test_an_unknown_model_is_unpriced_and_not_free(provider, model):
    assert price_of(provider, model) is None
    assert price_of(provider, model, Decimal(1), None) is None


def test_models_of_both_wires_are_in_the_catalogue():
    assert price_of("openai", "gpt-4o-mini") == Price(Decimal("0.15"), Decimal("0.6"))
    assert price_of("anthropic", "claude-sonnet-4-20250514") == Price(Decimal("3"), Decimal("15"))
    assert price_of("anthropic", "claude-3-5-haiku-latest", None, Decimal("9")) == Price(Decimal("0.8"), Decimal("9"))


def test_a_price_with_steps_takes_the_dearest():
    price = price_of("google", "gemini-2.5-pro")
    assert price is not None and price.input > Decimal("1.25") and price.output > Decimal("10")


def test_the_catalogue_is_not_loaded_by_importing():
    look = "import sys, runs.inference.prices, runs.inference.providers; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0


@pytest.mark.parametrize(
    ("tokens_in", "tokens_out", "micro"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1_000_000, 0, 150_000), (1000, 100, 210), (7, 3, 3), (-5, 0, 0), (-5, 10, 6)],
)
def test_a_cost_is_rounded_up_to_whole_micro_usd(tokens_in, tokens_out, micro):
    assert cost_micro(Price(Decimal("0.15"), Decimal("0.60")), tokens_in, tokens_out) == micro


def test_an_unpriced_cost_is_nothing():
    assert cost_micro(None, 10_000, 10_000) == 0


@given(money, money, counts, counts)
def test_a_cost_is_never_less_than_the_exact_one_and_less_than_one_micro_more(price_in, price_out, tokens_in, tokens_out):
    exact = tokens_in * price_in + tokens_out * price_out
    assert exact <= cost_micro(Price(price_in, price_out), tokens_in, tokens_out) < exact + 1
