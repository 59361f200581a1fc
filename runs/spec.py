"""The `release:` block: what an agent may do and spend, and what it falls back to, validated."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tools import memory

from .ladder import Rung, check
from .limits import Limits, Seconds, Strict, Tightening

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9_.-]{0,63}$")]


class RoleModel(Strict):
    """The model of a role and what it falls back to, in order. `when` (CEL over `run`) makes a role conditional."""

    model: Name
    fallback: tuple[Name, ...] = ()
    max_tokens: Annotated[int, Field(ge=1, le=200_000)] = 1000
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    when: str | None = None


class Critique(RoleModel):
    """Checks a final answer, or every proposed write before anything else decides about it."""

    checks: tuple[Literal["answer", "writes"], ...] = ("answer",)


class Models(Strict):
    planner: RoleModel
    reformulation: RoleModel | None = None
    critique: Critique | None = None
    synthesis: RoleModel | None = None

    def roles(self) -> tuple[RoleModel, ...]:
        return tuple(role for role in (self.planner, self.reformulation, self.critique, self.synthesis) if role)


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


class Memory(Strict):
    """What runs may keep for later ones. `sensitive`: its sealed values may be read into a conversation, by a tool of their own."""

    session: bool = False
    references: bool = False
    sensitive: bool = False
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    max_items: Annotated[int, Field(ge=1, le=1000)] = 100  # of one session, and of one subject's references

    @model_validator(mode="after")
    def is_for_something(self) -> "Memory":
        if not (self.session or self.references):
            raise ValueError("memory: switch session or references on, or leave it out")
        return self


class ReleaseSpec(Strict):
    instructions: Annotated[str, Field(min_length=1, max_length=100_000)]
    tools: tuple[ToolName, ...] = ()
    models: Models
    budget: Budget = Budget()
    deadlines: Deadlines = Deadlines()
    ladder: Annotated[tuple[Rung, ...], Field(max_length=20)] = ()
    memory: Memory | None = None

    @model_validator(mode="before")
    @classmethod
    def empty_is_absent(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if not (k == "ladder" and v is None) and not (k == "memory" and not v)}
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
        brought = memory.listed(sensitive=self.memory.sensitive) if self.memory else ()
        if extra := sorted({*self.tools} & {*memory.SPECS} - {*brought}):
            raise ValueError(f"tools: {', '.join(extra)} comes with memory, and this release has none of it")
        check(self.ladder)
        return self

    def content(self) -> dict[str, Any]:
        """What identifies a release: parts that came later and are not used do not change what it was before them."""
        values = self.model_dump(mode="json")
        if not self.ladder:
            del values["ladder"]
        if self.memory is None:
            del values["memory"]
        if self.models.critique is None:
            del values["models"]["critique"]
        return values

    def model_names(self) -> set[str]:
        return {name for role in self.models.roles() for name in (role.model, *role.fallback)}


class NotSupported(Exception):
    """A known key whose enforcement is not built. Not a ValueError, so that pydantic lets it through untouched."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is not supported yet")
        self.key = key


def limits(spec: ReleaseSpec, tighter: Tightening | None = None) -> Limits:
    """The release's limits, each lowered to the caller's where that is lower."""
    budget, deadlines = spec.budget, spec.deadlines
    values: dict[str, Any] = budget.model_dump(exclude={"max_cost_usd"}) | deadlines.model_dump()
    values["max_cost_micro"] = int(budget.max_cost_usd * 1_000_000)
    asked = tighter.model_dump(exclude_none=True) if tighter else {}
    if "max_cost_usd" in asked:
        asked["max_cost_micro"] = int(asked.pop("max_cost_usd") * 1_000_000)
    if "allowed_models" in asked:
        wanted, within = asked.pop("allowed_models"), values["allowed_models"] or spec.model_names()
        values["allowed_models"] = tuple(name for name in wanted if name in within)
    return Limits(**(values | {key: min(value, values[key]) for key, value in asked.items()}))
