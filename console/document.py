"""The configuration document: read from YAML within limits, variables put in, validated; unknown keys are refused by path."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from runs.catalog import ModelSpec
from runs.evals.suites import SuiteSpec
from runs.spec import Name, ReleaseSpec, ToolName
from tenants.errors import Refused
from tools.spec import ServerName, Slug, ToolSpec

from .incidents.parameters import NAME as DETECTOR_NAME
from .incidents.parameters import DetectorSpec
from .runbooks.reading import NAME as RUNBOOK_NAME

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 200_000  # values in the document after its aliases are written out
VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")
NOT_BUILT = (  # known to the contract, enforced by nothing yet
    "suites[].cases[].expect.answer[].judge",
)


class Strict(BaseModel):
    # Errors must not repeat a secret that somebody wrote under the wrong key.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


Usd = Annotated[Decimal, Field(ge=0, le=10**9, decimal_places=6)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class Ceilings(Strict):
    """Of one place, by their kinds. 0 accepts nothing; absent: no ceiling is set here."""

    cost_usd_per_day: Usd | None = None
    cost_usd_per_month: Usd | None = None
    concurrent_runs: Count | None = None
    runs_per_minute: Count | None = None


class Platform(Strict):
    ceilings: Ceilings | None = None


class Retention(Strict):
    """Null: for ever."""

    history_days: Annotated[int, Field(ge=1, le=36_500)] | None


class TenantBlock(Strict):
    slug: Slug
    name: Annotated[str, Field(max_length=200)] = ""
    ceilings: Ceilings | None = None
    retention: Retention | None = None


class EgressBlock(Strict):
    allow: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._:\[\]-]{1,250}:[0-9]{1,5}$")], ...] = ()


class CredentialBlock(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    tenant: Slug
    kind: Literal["bearer", "header", "basic"] = "bearer"
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{0,100}$")] = ""
    value: SecretStr | None = None
    value_env: str | None = None

    @model_validator(mode="after")
    def has_one_source(self) -> Self:
        if (self.value is None) == (self.value_env is None):
            raise ValueError("give either value or value_env")
        if (self.kind == "header") != bool(self.header):
            raise ValueError("header belongs to kind: header, and only to it")
        return self


class ModelBlock(ModelSpec):
    name: Name


class McpServerBlock(Strict):
    name: ServerName
    url: Annotated[str, Field(min_length=1, max_length=2000)]
    credential: Annotated[str, Field(max_length=100)] = ""
    tenants: tuple[Slug, ...] = ()
    transport: Literal["streamable_http", "stdio"] = "streamable_http"


class ToolBlock(ToolSpec):
    name: ToolName


class PermissionBlock(Strict):
    tool: ToolName
    tenant: Slug | None = None
    agent: Name | Literal[""] = ""
    user_role: Annotated[str, Field(max_length=64)] = ""
    decision: Literal["allow", "ask", "draft", "deny"]
    approvers: Annotated[int, Field(ge=1, le=9)] = 1
    when: Annotated[str, Field(max_length=2000)] = ""
    loosen: bool = False
    group: Annotated[str, Field(max_length=64)] = ""


class GroupBlock(Strict):
    tenant: Slug
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
    people: tuple[Annotated[str, Field(max_length=150)], ...]
    escalates_to: Annotated[str, Field(max_length=64)] = ""


class RuleBlock(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
    tenant: Slug | None = None
    decision: Literal["ask", "draft", "deny"]
    when: Annotated[str, Field(min_length=1, max_length=2000)]
    on: Literal["call", "answer"] = "call"
    approvers: Annotated[int, Field(ge=1, le=9)] = 1
    enabled: bool = True


class RunbookBlock(Strict):
    name: Annotated[str, Field(pattern=rf"^{RUNBOOK_NAME}$")]
    text: Annotated[str, Field(min_length=1, max_length=65536)]
    tenants: tuple[Slug, ...] = ()


class AgentBlock(Strict):
    name: Name
    tenants: tuple[Slug, ...] = ()
    release: ReleaseSpec | None = None
    ceilings: Ceilings | None = None


class DetectorBlock(DetectorSpec):
    name: Annotated[str, Field(pattern=f"^{DETECTOR_NAME}$")]


class Document(Strict):
    """Contract section 3. Absent sections stay as they are; `model_fields_set` tells which were given."""

    platform: Platform | None = None
    tenants: tuple[TenantBlock, ...] = ()
    egress: EgressBlock = EgressBlock()
    credentials: tuple[CredentialBlock, ...] = ()
    models: tuple[ModelBlock, ...] = ()
    mcp_servers: tuple[McpServerBlock, ...] = ()
    tools: tuple[ToolBlock, ...] = ()
    groups: tuple[GroupBlock, ...] = ()
    permissions: tuple[PermissionBlock, ...] = ()
    rules: tuple[RuleBlock, ...] = ()
    agents: tuple[AgentBlock, ...] = ()
    suites: tuple[SuiteSpec, ...] = ()
    runbooks: tuple[RunbookBlock, ...] = ()
    detectors: tuple[DetectorBlock, ...] = ()

    @model_validator(mode="after")
    def names_each_thing_once(self) -> Self:
        named: dict[str, list[Any]] = {
            "tenants": [t.slug for t in self.tenants],
            "credentials": [(c.tenant, c.name) for c in self.credentials],
            "models": [m.name for m in self.models],
            "mcp_servers": [s.name for s in self.mcp_servers],
            "tools": [t.name for t in self.tools],
            "groups": [(g.tenant, g.name) for g in self.groups],
            "permissions": [(p.tool, p.tenant, p.agent, p.user_role, p.when) for p in self.permissions],
            "rules": [(r.name, r.tenant) for r in self.rules],
            "agents": [a.name for a in self.agents],
            "suites": [s.name for s in self.suites],
            "runbooks": [r.name for r in self.runbooks],
            "detectors": [d.name for d in self.detectors],
        }
        for section, names in named.items():
            if twice := [name for name, times in Counter(names).items() if times > 1]:
                raise ValueError(f"{section}: {twice[0]} is there twice")
        return self


def load(*parts: Any, variables: Mapping[str, str] | None = None) -> Document:
    """Parts (one per file, as `read` gives them) to one document; lists of the same section are put together.

    Raises Refused 422: bad_document (with `errors`: path and message of each), not_supported, unknown_variable.
    """
    merged: dict[str, Any] = {}
    for part in parts:
        merge(merged, part)
    filled = fill(merged, variables or {}, "")
    try:
        return Document.model_validate(without_unbuilt(filled))
    except ValidationError as error:
        found = [{"path": path_of(e["loc"]), "message": e["msg"]} for e in error.errors(include_url=False, include_input=False)][:20]
        said = "; ".join(f"{e['path']}: {e['message']}" if e["path"] else e["message"] for e in found)
        raise Refused("bad_document", f"The document cannot be applied: {said}.", errors=found)


def merge(into: dict[str, Any], part: Any) -> None:
    if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
        raise bad("the document must be a mapping of sections")
    for key, value in part.items():
        held = into.get(key)
        if held is None or value is None:
            into[key] = value if held is None else held
        elif isinstance(held, list) and isinstance(value, list):
            into[key] = held + value
        elif isinstance(held, dict) and isinstance(value, dict):
            merge(held := dict(held), value)
            into[key] = held
        else:
            raise bad(f"{key} is given twice")


def without_unbuilt(document: dict[str, Any]) -> dict[str, Any]:
    """Refuse what would be accepted and ignored; drop it where it is empty. Sections that are null are absent."""
    for pattern in NOT_BUILT:
        for holder, key, path in places(document, pattern.split("."), ""):
            if holder.pop(key):
                raise Refused("not_supported", f"{path} is known but not supported yet. Leave it out.", path=path, key=path)
    return {key: value for key, value in document.items() if value is not None}


def places(value: Any, pattern: list[str], path: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Where a pattern such as `tools[].verify` is in the document: (holder, key, path)."""
    if not isinstance(value, dict):
        return
    head, rest = pattern[0].removesuffix("[]"), pattern[1:]
    here = f"{path}.{head}".lstrip(".")
    if head not in value:
        return
    if not rest:
        yield value, head, here
    elif pattern[0].endswith("[]"):
        for index, item in enumerate(listed(value, head)):
            yield from places(item, rest, f"{here}[{index}]")
    else:
        yield from places(value[head], rest, here)


def listed(value: dict[str, Any], key: str) -> list[Any]:
    found = value.get(key)
    return found if isinstance(found, list) else []


def fill(value: Any, variables: Mapping[str, str], path: str) -> Any:
    """`${NAME}` in texts becomes its value (not looked through again); `$${NAME}` stays as `${NAME}`. Gives a copy."""
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: variable(found, variables, path), value)
    if isinstance(value, list):
        return [fill(item, variables, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: fill(item, variables, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
    return value


def variable(found: re.Match[str], variables: Mapping[str, str], path: str) -> str:
    escaped, name = found.groups()
    if escaped:
        return f"${{{name}}}"
    if name not in variables:
        known = ", ".join(sorted(variables)) or "none here"
        raise Refused("unknown_variable", f"{path}: there is no variable {name} (known: {known}).", path=path, variable=name)
    return variables[name]


def read(raw: bytes | str) -> Any:
    """YAML or JSON text to plain values. Raises Refused 422 bad_document, 413 document_too_large."""
    text = raw.encode() if isinstance(raw, str) else raw
    if len(text) > MAX_BYTES:
        raise Refused("document_too_large", "The document is larger than 1 MiB.", 413)
    try:
        check_events(text)
        value = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, RecursionError) as error:
        raise bad(f"it cannot be read: {' '.join(str(error).split())[:300]}")
    count(value, 0, [MAX_NODES])
    return value


BOOL = "tag:yaml.org,2002:bool"


class Loader(yaml.CSafeLoader):
    """Safe, and refuses a key that is there twice, and merge keys (they multiply). Only true and false are booleans, as in YAML 1.2:
    `on` is a key of rules and of rungs."""

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != BOOL] for first, pairs in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not read", key.start_mark)
            if (key.tag, str(key.value)) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} is there twice", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def check_events(text: bytes) -> None:
    """Depth before anything recursive sees it."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")


def count(value: Any, depth: int, left: list[int]) -> None:
    """An alias is a reference when read and a copy from here on: bounded by what it would come to."""
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        raise bad("its aliases come to more than can be held")
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        count(item, depth + 1, left)


def path_of(loc: tuple[int | str, ...]) -> str:
    """("tools", 0, "adapter", "http", "url") -> `tools[0].adapter.http.url`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def bad(why: str) -> Refused:
    return Refused("bad_document", f"The document cannot be applied: {why}.", errors=[{"path": "", "message": why}])
