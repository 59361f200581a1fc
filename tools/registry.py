"""Python tools: functions registered by name, with schemas made from their types.

Modules are named by `SIGNALBOX_TOOL_MODULES` and imported in the child processes of `tools.adapters.python`. A tool is
referred to by its registered name only; nothing outside can name a function by its dotted path.
"""

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError

from tools.definitions import ErrorClass

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SAYABLE: Final = frozenset(ErrorClass) - {ErrorClass.POLICY, ErrorClass.INVALID_OUTPUT, ErrorClass.NOT_SENT}
F = TypeVar("F", bound=Callable[..., Any])


class RegistryError(Exception):
    """A tool cannot be registered, or its module cannot be imported. Says which and why."""


class UnknownTool(LookupError):
    """No tool is registered under this name."""


class InvalidArguments(ValueError):
    """The arguments do not fit the function's types; the function was not called."""


class InvalidResult(ValueError):
    """The function was called, but what it gave back cannot be said in JSON."""


class ToolError(Exception):
    """Raised by a tool to say what happened in the words of the error table.

    `error_class`: any ErrorClass but `policy`, `not_sent` and `invalid_output`, which are for the runtime to say.
    """

    def __init__(self, error_class: ErrorClass | str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.error_class = ErrorClass(error_class)
        if self.error_class not in _SAYABLE:
            raise ValueError(f"{self.error_class} is not for a tool to say")
        self.message = message
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know of its call; passed to the parameter annotated with this type, hidden from the model."""

    run_id: str
    step: int
    idem_key: str | None
    timeout_s: float
    credential: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RegisteredTool:
    """A registered function with the JSON Schemas of its arguments and (None: anything) of its result."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None
    function: Callable[..., Any]
    _arguments: type[BaseModel]
    _result: TypeAdapter[Any]
    _context_name: str | None

    def call(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Validate, call, and give the result as plain JSON values. Raises InvalidArguments,
        InvalidResult and what the tool raises."""
        try:
            checked = self._arguments.model_validate(arguments)
        except ValidationError as fault:
            raise InvalidArguments(_complaint(fault)) from None
        named = {info.alias or name: getattr(checked, name) for name, info in self._arguments.model_fields.items()}
        if self._context_name is not None:
            named[self._context_name] = context
        result = self.function(**named)
        try:
            return self._result.dump_python(result, mode="json", warnings="none")
        except (ValueError, TypeError, RecursionError) as fault:
            raise InvalidResult(f"the result is not JSON: {type(fault).__name__}") from None


_registered: dict[str, RegisteredTool] = {}


def signalbox_tool(function: F | None = None, *, name: str | None = None, description: str | None = None) -> Any:
    """Register a function as a tool, as `@signalbox_tool` or `@signalbox_tool(name=…)`; the function is unchanged.

    Name and description default to the function's name and docstring. Every parameter needs a type. Raises
    RegistryError.
    """

    def register(target: F) -> F:
        tool = _tool(target, name or target.__name__, description or inspect.getdoc(target) or "")
        known = _registered.get(tool.name)
        if known is not None and _origin(known.function) != _origin(target):
            raise RegistryError(f"{tool.name} is registered twice: {_origin(known.function)}, {_origin(target)}")
        _registered[tool.name] = tool
        return target

    return register if function is None else register(function)


def find(name: str) -> RegisteredTool:
    """Raises UnknownTool, also for dotted paths."""
    try:
        return _registered[name]
    except KeyError:
        raise UnknownTool(f"no Python tool is registered as {name!r}") from None


def registered() -> tuple[RegisteredTool, ...]:
    """All tools, by name."""
    return tuple(_registered[name] for name in sorted(_registered))


def load(modules: Iterable[str]) -> None:
    """Import the modules, so that their decorators run. Raises RegistryError naming the module."""
    for module in modules:
        try:
            importlib.import_module(module)
        except RegistryError:
            raise
        except Exception as fault:
            raise RegistryError(f"{module} cannot be imported: {type(fault).__name__}: {fault}") from fault


def module_names(listed: str) -> tuple[str, ...]:
    """The names in a value of `SIGNALBOX_TOOL_MODULES`: separated by commas or spaces."""
    return tuple(name for name in re.split(r"[,\s]+", listed) if name)


def _origin(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _tool(function: Callable[..., Any], name: str, description: str) -> RegisteredTool:
    if not _NAME.fullmatch(name):
        raise RegistryError(f"{name!r} is not a tool name: lower-case letters, digits and underscores")
    if inspect.iscoroutinefunction(function):
        raise RegistryError(f"{name} is a coroutine function; tools are plain functions")
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        context_name, fields = _fields(name, function, hints)
        arguments = create_model(name, __config__=ConfigDict(extra="forbid", title=name), **fields)
        result = TypeAdapter[Any](hints.get("return", Any))
        output = result.json_schema(mode="serialization") if "return" in hints else None
        schema = arguments.model_json_schema()
    except (NameError, TypeError, PydanticUserError) as fault:
        raise RegistryError(f"{name}: {fault}") from fault
    return RegisteredTool(name, description, schema, output or None, function, arguments, result, context_name)


def _fields(name: str, function: Callable[..., Any], hints: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Fields are numbered and aliased, so that an argument may bear a name that pydantic keeps for itself."""
    context_name, fields = None, dict[str, Any]()
    for index, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise RegistryError(f"{name}: {parameter.name} must be an ordinary or a keyword parameter")
        if parameter.name not in hints:
            raise RegistryError(f"{name}: {parameter.name} has no type")
        if hints[parameter.name] is ToolContext:
            context_name = parameter.name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"argument_{index}"] = (hints[parameter.name], Field(default, alias=parameter.name))
    return context_name, fields


def _complaint(fault: ValidationError) -> str:
    errors = fault.errors(include_url=False, include_input=False, include_context=False)[:5]
    return "; ".join(f"/{'/'.join(map(str, error['loc']))}: {error['msg']}" for error in errors)
