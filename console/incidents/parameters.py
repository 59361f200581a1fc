"""The figures of a detector: read, held within bounds, refused by name. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tenants.errors import Refused
from tools.spec import Slug

DAY_MINUTES = 24 * 60
NAME = r"[a-z][a-z0-9_-]{0,63}"


class Parameters(BaseModel):
    """`threshold` and `k` are compared as the kind says; `k`: so many MADs above the median too, 0: no matter.

    It fires on `minimum` things in the last `window_minutes`. It is over once the figure stayed for `hold_minutes` under `clear_ratio`
    of the way from the median (where the kind knows one, else zero) to the line. The baseline is of whole hours of `baseline_days`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
    window_minutes: Annotated[int, Field(ge=1, le=240)] = 10
    threshold: Annotated[float, Field(ge=0, le=10**9)]
    minimum: Annotated[int, Field(ge=1, le=10**6)] = 20
    baseline_days: Annotated[int, Field(ge=1, le=30)] = 7
    k: Annotated[float, Field(ge=0, le=100)] = 0
    clear_ratio: Annotated[float, Field(gt=0, le=1)] = 0.8
    hold_minutes: Annotated[int, Field(ge=0, le=DAY_MINUTES)] = 10


class DetectorSpec(BaseModel):
    """A detector as it will be: what is left out is as its kind says. `runbook` empty: none is linked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
    kind: Annotated[str, Field(max_length=24)] = ""
    enabled: bool = True
    severity: Literal["critical", "major", "minor"] | None = None
    runbook: Annotated[str, Field(max_length=64)] | None = None
    tenants: tuple[Slug, ...] = ()
    parameters: dict[str, int | float] = {}


def read(default: Parameters, given: Mapping[str, Any]) -> Parameters:
    """`given` over the kind's own. Refuses detector_invalid 422 with the path and message of each error."""
    try:
        return Parameters.model_validate({**default.model_dump(), **given})
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> Refused:
    found = [{"path": ".".join(str(part) for part in e["loc"]), "message": e["msg"]} for e in error.errors(include_url=False)][:20]
    said = "; ".join(f"{e['path']}: {e['message']}" if e["path"] else e["message"] for e in found)
    return Refused("detector_invalid", f"The detector cannot be set so: {said}.", 422, errors=found)
