"""The limits of one run: budget and deadlines as integers and seconds. Also what a caller may tighten."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Limits(Strict):
    """Budget and deadlines of one run as integers and seconds, after the caller tightened them. Stored with the run."""

    max_steps: int
    max_tool_calls: int
    max_writes: int
    max_input_tokens: int
    max_output_tokens: int
    max_cost_micro: int
    allowed_models: tuple[str, ...] | None
    model_call_s: float
    tool_call_s: float
    step_s: float
    run_s: float
    approval_s: float | None
    count_waiting: bool


class Tightening(Strict):
    """The `budget` of `POST /runs`: each key may only lower the release's."""

    max_steps: Annotated[int, Field(ge=1)] | None = None
    max_tool_calls: Annotated[int, Field(ge=0)] | None = None
    max_writes: Annotated[int, Field(ge=0)] | None = None
    max_input_tokens: Annotated[int, Field(ge=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    max_cost_usd: Annotated[Decimal, Field(gt=0)] | None = None
    allowed_models: tuple[str, ...] | None = None  # of the release's; others are left out
    run_s: Seconds | None = None
