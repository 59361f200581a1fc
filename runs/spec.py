"""The `release:` block: what an agent may do and spend, validated. Also what a caller may tighten."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9_.-]{0,63}$")]
Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RoleModel(Strict):
    """The model of a role and what it falls back to, in order. `when` (CEL over `run`) makes a role conditional."""

    model: Name
    fallback: tuple[Name, ...] = ()
    max_tokens: Annotated[int, Field(ge=1, le=200_000)] = 1000
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    when: str | None = None


class Models(Strict):
    planner: RoleModel
    reformulation: RoleModel | None = None
    synthesis: RoleModel | None = None


class Budget(Strict):
    """Hard limits of one run. Cost in USD."""

    max_steps: Annotated[int, Field(ge=1, le=1000)] = 8
    max_tool_calls: Annotated[int, Field(ge=0, le=10_000)] = 16
    max_writes: Annotated[int, Field(ge=0, le=1000)] = 4
    max_input_tokens: Annotated[int, Field(ge=1)] = 100_000
    max_output_tokens: Annotated[int, Field(ge=1)] = 16_000
    max_cost_usd: Annotated[Decimal, Field(gt=0, le=100_000)] = Decimal("1")
    allowed_models: tuple[Name, ...] | None = None


class Deadlines(Strict):
    """Seconds. A call never gets more than its step has left, a step never more than its run."""

    model_call_s: Seconds = 30
    tool_call_s: Seconds = 15
    step_s: Seconds = 60
    run_s: Seconds = 300
    approval_s: Seconds | None = None
    count_waiting: bool = False


class ReleaseSpec(Strict):
    instructions: Annotated[str, Field(min_length=1, max_length=100_000)]
    tools: tuple[ToolName, ...] = ()
    models: Models
    budget: Budget = Budget()
    deadlines: Deadlines = Deadlines()

    @model_validator(mode="before")
    @classmethod
    def refuse_what_is_not_built(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in ("ladder", "memory"):
                if value.get(key):
                    raise NotSupported(key)
            if isinstance(value.get("models"), dict) and value["models"].get("critique"):
                raise NotSupported("models.critique")
            value = {k: v for k, v in value.items() if k not in ("ladder", "memory")}
        return value

    @model_validator(mode="after")
    def models_are_allowed(self) -> "ReleaseSpec":
        allowed = self.budget.allowed_models
        named = self.model_names()
        if allowed is not None and (over := sorted(named - set(allowed))):
            raise ValueError(f"models not in budget.allowed_models: {', '.join(over)}")
        if self.models.planner.when is not None:
            raise ValueError("models.planner.when: the planner is never conditional")
        if len(set(self.tools)) != len(self.tools):
            raise ValueError("a tool is listed twice")
        return self

    def model_names(self) -> set[str]:
        roles = (self.models.planner, self.models.reformulation, self.models.synthesis)
        return {name for role in roles if role for name in (role.model, *role.fallback)}


class NotSupported(Exception):
    """A known key whose enforcement is not built. Not a ValueError, so that pydantic lets it through untouched."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is not supported yet")
        self.key = key


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
    run_s: Seconds | None = None


def limits(spec: ReleaseSpec, tighter: Tightening | None = None) -> Limits:
    """The release's limits, each lowered to the caller's where that is lower."""
    budget, deadlines = spec.budget, spec.deadlines
    values: dict[str, Any] = budget.model_dump(exclude={"max_cost_usd"}) | deadlines.model_dump()
    values["max_cost_micro"] = int(budget.max_cost_usd * 1_000_000)
    asked = tighter.model_dump(exclude_none=True) if tighter else {}
    if "max_cost_usd" in asked:
        asked["max_cost_micro"] = int(asked.pop("max_cost_usd") * 1_000_000)
    return Limits(**(values | {key: min(value, values[key]) for key, value in asked.items()}))
