"""A case: what a run is asked, how its tools answer, and what is expected of its path. Validated; contradictions are refused."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from runs.limits import Strict
from runs.spec import NotSupported, ToolName
from tenants.errors import Refused
from tools import schemas
from tools.canonical import dumps

MAX_BYTES = 256 * 1024  # of a case as JSON
MAX_TEXT = 100_000
Pattern = Annotated[str, Field(min_length=1, max_length=1000)]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
Schema = dict[str, Any]


class Asked(Strict):
    """What the run is given. `user`: {id, attributes} as in `POST /runs`."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    data: Any = None
    user: dict[str, Any] | None = None


class Given(Strict):
    """The answer that a call of this tool gets; `args`: those that it has to have. The first that fits is used, each time."""

    tool: ToolName
    args: dict[str, Any] | None = None
    result: dict[str, Any]


class Results(Strict):
    """recorded: from a run; simulated: written for the case; live: reads are sent to the tools. Writes are never sent: one that nothing
    answers is only kept as what would have been done."""

    how: Literal["recorded", "simulated", "live"] = "recorded"
    given: Annotated[tuple[Given, ...], Field(max_length=500)] = ()


class ExpectedWrite(Strict):
    """A change that is to be made once. `args`: fields that are exactly so; `matches`: fields by pattern; `schema`: all arguments."""

    tool: ToolName
    args: dict[str, Any] = {}
    matches: Annotated[dict[str, Pattern], Field(max_length=50)] = {}
    fits: Schema | None = Field(default=None, alias="schema")

    @field_validator("matches")
    @classmethod
    def patterns_run(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in value.values():
            compiled(of_pattern(pattern))
        return value

    @field_validator("fits")
    @classmethod
    def schema_runs(cls, value: Schema | None) -> Schema | None:
        return value if value is None else runnable(value)


class AnswerCheck(Strict):
    """One of: a text in the answer or not in it (but for case and white space), a pattern, a JSON Schema of the answer as JSON."""

    contains: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    excludes: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    matches: Pattern | None = None
    fits: Schema | None = Field(default=None, alias="schema")

    @model_validator(mode="before")
    @classmethod
    def no_judge(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("judge"):
            raise NotSupported("judge")
        return value

    @model_validator(mode="after")
    def is_one_check(self) -> Self:
        if sum(part is not None for part in (self.contains, self.excludes, self.matches, self.fits)) != 1:
            raise ValueError("give one of contains, excludes, matches, schema")
        if self.matches is not None:
            compiled(of_pattern(self.matches))
        if self.fits is not None:
            runnable(self.fits)
        return self


class Expectations(Strict):
    """What is not said is not judged. `writes` empty: nothing may be changed. `order`: pairs, the first is answered before the second."""

    allowed: Annotated[tuple[ToolName, ...], Field(max_length=200)] | None = None
    required: Annotated[tuple[ToolName, ...], Field(max_length=200)] = ()
    forbidden: Annotated[tuple[ToolName, ...], Field(max_length=200)] = ()
    order: Annotated[tuple[tuple[ToolName, ToolName], ...], Field(max_length=100)] = ()
    writes: Annotated[tuple[ExpectedWrite, ...], Field(max_length=100)] | None = None
    max_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_cost_usd: Annotated[Decimal, Field(gt=0, le=100_000, decimal_places=6)] | None = None
    answer: Annotated[tuple[AnswerCheck, ...], Field(max_length=50)] = ()

    @model_validator(mode="after")
    def can_be_met(self) -> Self:
        for first, second, why in contradictions(self):
            raise contradiction(first, second, why)
        return self


class CaseSpec(Strict):
    """`note` is for people."""

    key: Key
    input: Asked
    tools: Results = Results()
    expect: Expectations = Field(default_factory=Expectations)
    note: Annotated[str, Field(max_length=2000)] = ""

    @field_validator("input", mode="before")
    @classmethod
    def text_alone(cls, value: Any) -> Any:
        return {"text": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def results_agree(self) -> Self:
        if self.tools.how == "live" and self.tools.given:
            raise contradiction("tools.how", "tools.given", "live tools answer themselves, so no results can be given")
        return self

    def content(self) -> dict[str, Any]:
        """As stored and exported, without what was not said."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True) | {"key": self.key}


def contradictions(expect: Expectations) -> Iterator[tuple[str, str, str]]:
    """(one key, the other, why both cannot hold)."""
    yield from of_tools(expect)
    before = dict[str, set[str]]()
    for first, second in expect.order:
        before.setdefault(second, set()).add(first)
    if round_trip := next((name for name in before if name in reaches(name, before)), None):
        yield "expect.order", "expect.order", f"{round_trip} would have to come before itself"
        return
    least = least_steps(expect, before)
    if expect.max_steps is not None and expect.max_steps < least:
        yield "expect.max_steps", "expect.required" if not expect.order else "expect.order", f"what has to be done takes {least} steps"
    wanted = {check.contains for check in expect.answer if check.contains}
    for check in expect.answer:
        if check.excludes in wanted:
            yield "expect.answer.contains", "expect.answer.excludes", f"both say {check.excludes!r}"


def of_tools(expect: Expectations) -> Iterator[tuple[str, str, str]]:
    writes = tuple(write.tool for write in expect.writes or ())
    named = {"required": expect.required, "order": tuple(name for pair in expect.order for name in pair), "writes": writes}
    for key, names in named.items():
        for name in names:
            if name in expect.forbidden:
                yield f"expect.{key}", "expect.forbidden", f"{name} is in both"
            if expect.allowed is not None and name not in expect.allowed:
                yield f"expect.{key}", "expect.allowed", f"{name} is not among the allowed tools"
    for name in expect.allowed or ():
        if name in expect.forbidden:
            yield "expect.allowed", "expect.forbidden", f"{name} is in both"


def must_be_called(expect: Expectations) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*expect.required, *(write.tool for write in expect.writes or ()))))


def least_steps(expect: Expectations, before: dict[str, set[str]]) -> int:
    """Calls of one step are made together, so only an order takes more than one; an answer takes one more."""
    needed = set(must_be_called(expect))

    def depth(name: str) -> int:
        return 1 + max((depth(each) for each in before.get(name, ()) if each in needed), default=0)

    return max((depth(name) for name in needed), default=0) + bool(expect.answer) or 1


def reaches(name: str, before: dict[str, set[str]]) -> set[str]:
    found, open_ = set[str](), [name]
    while open_:
        new = before.get(open_.pop(), set()) - found
        found |= new
        open_ += new
    return found


def contradiction(first: str, second: str, why: str) -> PydanticCustomError:
    return PydanticCustomError("contradiction", "{first} and {second}: {why}", {"first": first, "second": second, "why": why})


def of_pattern(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


def compiled(schema: Schema) -> schemas.Validator:
    """Bounded before it runs, and it never backtracks (`tools.schemas`)."""
    try:
        return schemas.compile(schema)
    except schemas.SchemaError as error:
        raise ValueError(error.message) from None


def runnable(schema: Schema) -> Schema:
    compiled(schema)
    return schema


def read(value: Any) -> CaseSpec:
    """Refuses 422: contradiction (with `between`), not_supported, bad_case (with `errors`: path, message); 413 case_too_large."""
    try:
        made = CaseSpec.model_validate(value)
    except NotSupported as error:
        raise Refused("not_supported", "A judge model is not supported yet: use contains, excludes, matches or schema.", key=error.key)
    except ValidationError as error:
        raise refusal(error) from None
    if len(dumps(made.content())) > MAX_BYTES:
        raise Refused("case_too_large", "A case may take 256 KiB at most. Shorten its input or its results.", 413)
    return made


def refusal(error: ValidationError) -> Refused:
    found = error.errors(include_url=False, include_input=False)
    errors = [{"path": ".".join(map(str, each["loc"])), "message": each["msg"].removeprefix("Value error, ")} for each in found][:20]
    for each in found:
        if each["type"] == "contradiction":
            between = [each["ctx"]["first"], each["ctx"]["second"]]
            message = f"The case contradicts itself: {each['msg']}. Change one of them."
            return Refused("contradiction", message, between=between, errors=errors)
    said = "; ".join(f"{each['path']}: {each['message']}" if each["path"] else each["message"] for each in errors[:3])
    return Refused("bad_case", f"The case cannot be read: {said}.", errors=errors)
