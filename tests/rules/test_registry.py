"""Python tools are registered by decorator and known by name; their schemas come from their types."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from tools import registry, schemas
from tools.definitions import ErrorClass
from tools.registry import InvalidArguments, RegistryError, ToolContext, ToolError, UnknownTool, signalbox_tool

CONTEXT = ToolContext("agt_1", 2, "k" * 32, 5.0, "hush")


class Line(BaseModel):
    sku: str
    count: Annotated[int, Field(ge=1, le=9)] = 1


class Quote(BaseModel):
    total: float
    lines: list[Line]


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_registered", {})
    yield


def quote(lines: list[Line], currency: Literal["USD", "EUR"] = "USD", *, json: bool = False) -> Quote:
    """What the lines cost."""
    return Quote(total=sum(line.count for line in lines) * 1.5, lines=lines)


def test_schemas_name_and_description_come_from_the_function() -> None:
    signalbox_tool(quote)
    tool = registry.find("quote")
    assert (tool.name, tool.description) == ("quote", "What the lines cost.")
    accepts = schemas.compile(tool.input_schema)
    assert accepts.errors({"lines": [{"sku": "a", "count": 2}], "json": True}) == []
    assert accepts.errors({"lines": [{"sku": "a", "count": 99}]})
    assert accepts.errors({})
    assert accepts.errors({"lines": [], "unnamed": 1})
    assert tool.output_schema is not None
    assert schemas.compile(tool.output_schema).errors({"total": 1.5, "lines": []}) == []


def test_arguments_arrive_as_the_types_of_the_function_and_results_as_plain_json() -> None:
    signalbox_tool(quote)
    result = registry.find("quote").call({"lines": [{"sku": "a"}, {"sku": "b", "count": 3}], "json": True}, CONTEXT)
    assert result == {"total": 6.0, "lines": [{"sku": "a", "count": 1}, {"sku": "b", "count": 3}]}


def test_wrong_arguments_never_reach_the_function() -> None:
    called: list[int] = []

    @signalbox_tool
    def pay(amount: int) -> None:
        called.append(amount)

    with pytest.raises(InvalidArguments, match="/amount"):
        registry.find("pay").call({"amount": "a secret text"}, CONTEXT)
    with pytest.raises(InvalidArguments):
        registry.find("pay").call({"amount": 1, "more": 2}, CONTEXT)
    assert called == []


def test_the_context_is_handed_over_and_hidden_from_the_model() -> None:
    @signalbox_tool(name="who", description="Says who asks.")
    def anything(context: ToolContext, greeting: str = "hi") -> str:
        return f"{greeting} {context.run_id} {context.idem_key}"

    tool = registry.find("who")
    assert tool.description == "Says who asks."
    assert set(tool.input_schema["properties"]) == {"greeting"}
    assert tool.call({}, CONTEXT) == f"hi agt_1 {'k' * 32}"
    assert "hush" not in repr(CONTEXT)


def test_a_tool_is_known_by_its_registered_name_only() -> None:
    signalbox_tool(quote, name="price")
    for name in ("quote", "tests.rules.test_registry.quote", "os.system", "__import__"):
        with pytest.raises(UnknownTool):
            registry.find(name)
    assert [tool.name for tool in registry.registered()] == ["price"]


def untyped(amount) -> None:  # type: ignore[no-untyped-def]
    """Nothing says what amount is."""


def open_ended(**fields: int) -> None:
    """Takes anything."""


async def colourful(amount: int) -> None:
    """Would need a loop."""


def unsayable(thing: object) -> "Nothing":  # type: ignore[name-defined]  # noqa: F821
    """Names a type that is not there."""


@pytest.mark.parametrize("function", [untyped, open_ended, colourful, unsayable])
def test_a_function_that_cannot_be_described_is_refused(function: Any) -> None:
    with pytest.raises(RegistryError, match=function.__name__):
        signalbox_tool(function)


@pytest.mark.parametrize("name", ["a.b", "Upper", "", "with space", "x" * 65, "9lives"])
def test_a_name_that_is_not_a_plain_word_is_refused(name: str) -> None:
    with pytest.raises(RegistryError):
        signalbox_tool(quote, name=name or "-")


def test_two_functions_may_not_share_a_name_but_one_may_be_registered_again() -> None:
    signalbox_tool(quote)
    signalbox_tool(quote)
    with pytest.raises(RegistryError, match="twice"):
        signalbox_tool(open_ended_twin, name="quote")


def open_ended_twin(amount: int) -> int:
    return amount


def test_a_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(RegistryError, match=r"no_such_module\.at_all"):
        registry.load(["no_such_module.at_all"])


def test_the_setting_holds_names_apart_by_commas_or_spaces() -> None:
    assert registry.module_names(" a.b, c\n d ") == ("a.b", "c", "d")


@pytest.mark.parametrize("error", ["policy", "not_sent", "invalid_output", "nonsense"])
def test_a_tool_may_not_speak_for_the_runtime(error: str) -> None:
    with pytest.raises(ValueError):
        ToolError(error, "no")
    assert ToolError("conflict", "taken").error_class is ErrorClass.CONFLICT
