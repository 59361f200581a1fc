"""The block of one tool in a configuration document, validated. Pure."""

import re
import socket
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from . import conditions, places
from .addresses import is_public, reached
from .canonical import dumps
from .definitions import Effect, RetryPolicy

PLACES = re.compile(r"\{(\w+)\}")
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
ServerName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Word = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,40}$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class HttpAdapter(Strict):
    """`place` says where an argument goes: into the `{name}` of the path, the query, a header or the body. Without a word
    it goes into the query (GET, HEAD) or the body."""

    kind: Literal["http"]
    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD"] = "POST"
    url: Annotated[str, Field(max_length=2000)]
    place: dict[Annotated[str, Field(max_length=100)], Literal["path", "query", "header", "body"]] = {}

    @field_validator("url")
    @classmethod
    def can_be_sent_to(cls, url: str) -> str:
        destination(url)
        return url

    @model_validator(mode="after")
    def places_can_be_filled(self) -> "HttpAdapter":
        places.check(self.url, self.method, self.place)
        return self


class McpAdapter(Strict):
    """A tool of a server under `mcp_servers`, by its name there. `url` is the server's, filled in when a version is made."""

    kind: Literal["mcp"]
    server: ServerName
    tool: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")]
    url: Annotated[str, Field(max_length=2000)] = ""


class PythonAdapter(Strict):
    """A registered name; a dotted path would name any code on the machine."""

    kind: Literal["python"]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class MemoryAdapter(Strict):
    """A tool of the runtime itself; `tools.memory` has all of them, and nobody makes others."""

    kind: Literal["memory"]
    does: Literal["read", "read_sensitive", "write", "forget"]


class Verify(Strict):
    """How to find out whether a write was applied: a read, asked until `probes` answers in a row agree, `delay_s` apart.

    `args`: name -> CEL over `args` (of the write), `idem_key` and `effect_key`. The conditions are CEL over `result`;
    when neither is true (or the answer is an error) the probe cannot tell.
    """

    adapter: Annotated[HttpAdapter | PythonAdapter, Field(discriminator="kind")]
    args: dict[str, Annotated[str, Field(max_length=2000)]] = {}
    applied_when: Annotated[str, Field(min_length=1, max_length=2000)]
    not_applied_when: Annotated[str, Field(max_length=2000)] = ""
    delay_s: Annotated[float, Field(ge=0, le=3600)] = 2
    probes: Annotated[int, Field(ge=1, le=10)] = 2
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5

    @model_validator(mode="after")
    def can_be_evaluated(self) -> "Verify":
        for expression in self.args.values():
            conditions.check(expression, frozenset({"args", "idem_key", "effect_key"}))
        for expression in filter(None, (self.applied_when, self.not_applied_when)):
            conditions.check(expression, frozenset({"result"}))
        return self


class Preview(Strict):
    """What a write would change, for whoever is asked about it: a read, made when they are asked and again before it is sent.

    `args`: name -> CEL over `args` (of the write). `before`: what the decision rests on, `after`: what each of it becomes (it stays
    where nothing is said); both label -> CEL over `result` and `args`.
    """

    adapter: Annotated[HttpAdapter | PythonAdapter, Field(discriminator="kind")]
    args: dict[str, Annotated[str, Field(max_length=2000)]] = {}
    before: Annotated[dict[Word, Annotated[str, Field(min_length=1, max_length=2000)]], Field(min_length=1, max_length=20)]
    after: dict[Word, Annotated[str, Field(min_length=1, max_length=2000)]] = {}
    timeout_s: Annotated[float, Field(gt=0, le=5)] = 3  # the run waits for it, and so do the people

    @model_validator(mode="after")
    def can_be_evaluated(self) -> "Preview":
        for expression in self.args.values():
            conditions.check(expression, frozenset({"args"}))
        for expression in (*self.before.values(), *self.after.values()):
            conditions.check(expression, frozenset({"result", "args"}))
        if unknown := sorted(set(self.after) - set(self.before)):
            raise ValueError(f"after: {', '.join(unknown)} is not among before")
        return self


class Compensate(Strict):
    """How a write is undone: by a call of another registered tool, under that tool's own permissions, within so long of the write.

    `args`: name -> CEL over `args`, `result` and `idem_key` of the write.
    """

    tool: Annotated[str, Field(min_length=1, max_length=64)]
    args: dict[str, Annotated[str, Field(max_length=2000)]] = {}
    within_s: Annotated[float, Field(gt=0, le=90 * 86400)] = 86400

    @model_validator(mode="after")
    def can_be_evaluated(self) -> "Compensate":
        for expression in self.args.values():
            conditions.check(expression, frozenset({"args", "result", "idem_key"}))
        return self


class ToolSpec(Strict):
    adapter: Annotated[HttpAdapter | PythonAdapter | McpAdapter | MemoryAdapter, Field(discriminator="kind")]
    description: Annotated[str, Field(min_length=1, max_length=4000)]
    effect: Effect
    idempotency: Literal["key", "none"] = "none"
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 15
    retry: dict[str, Any] = {}
    labels: tuple[Label, ...] = ()
    duplicate_when: Annotated[str, Field(max_length=2000)] = ""
    credential: Annotated[str, Field(max_length=100)] = ""
    verify: Verify | None = None
    preview: Preview | None = None
    compensate: Compensate | None = None
    # the same effect twice in the window is answered `already_applied`: names of arguments in braces, as in `ticket:{account_id}`
    effect_key: Annotated[str, Field(max_length=200)] = ""
    effect_window_s: Annotated[float, Field(gt=0, le=90 * 86400)] = 86400
    # how long the other side remembers an idempotency key; after that a resend would be a second effect
    idempotency_window_s: Annotated[float, Field(gt=0, le=90 * 86400)] = 23 * 3600
    tenants: tuple[Slug, ...] = ()  # who sees it; empty: every tenant

    @model_validator(mode="after")
    def effect_key_names_arguments(self) -> "ToolSpec":
        properties = self.input_schema.get("properties")
        known = set(properties) if isinstance(properties, dict) else set()
        if missing := sorted(set(PLACES.findall(self.effect_key)) - known):
            raise ValueError(f"effect_key: no argument is called {', '.join(missing)}")
        if self.effect_key and self.effect is Effect.READ:
            raise ValueError("effect_key: a read has no effect")
        return self

    @model_validator(mode="after")
    def changes_what_can_be_shown_and_undone(self) -> "ToolSpec":
        if self.preview and self.effect is Effect.READ:
            raise ValueError("preview: a read changes nothing")
        if self.compensate and self.effect is not Effect.WRITE:
            raise ValueError(f"compensate: {'a read has no effect' if self.effect is Effect.READ else 'what is irreversible has no undo'}")
        return self

    @model_validator(mode="after")
    def places_name_arguments(self) -> "ToolSpec":
        if isinstance(self.adapter, HttpAdapter) and self.adapter.place:
            places.check_arguments(self.adapter.place, self.input_schema)
        return self

    @field_validator("retry")
    @classmethod
    def retry_can_be_read(cls, value: dict[str, Any]) -> dict[str, Any]:
        RetryPolicy.from_json(value)
        return value

    def stored(self) -> dict[str, Any]:
        """The fields of a version: everything that decides what a call does (`tenants` only says who sees the tool)."""
        values = self.model_dump(mode="json", include=set(ToolSpec.model_fields) - {"tenants"})
        if not values["adapter"].get("place", True):  # a tool without places is the tool that it was before there were any
            del values["adapter"]["place"]
        return values | {"labels": sorted(set(self.labels))}

    def sha256(self, name: str) -> str:
        """A tool without preview and compensate is the tool that it was before there were any."""
        fields = {key: part for key, part in self.stored().items() if part is not None or key not in ("preview", "compensate")}
        return sha256(dumps({"name": name, **fields})).hexdigest()


def destination(url: str) -> tuple[str, int]:
    """-> (host, port). Raises ValueError for what is not plain http(s) to a named host."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("the URL must begin with http:// or https://")
    if not parts.hostname or parts.username or parts.password or parts.fragment:
        raise ValueError("the URL needs a host, and may hold neither a user nor a fragment")
    if any(mark in url for mark in ("${", " ", "\\")) or not url.isprintable():
        raise ValueError("the URL holds a character that cannot be sent")
    return parts.hostname.rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)


def private_host_port(url: str) -> str | None:
    """`host:port` if the host is written as an address that is not public (or as localhost), else None.

    Names are judged by what they resolve to, when they are called.
    """
    host, port = destination(url)
    if host == "localhost" or host.endswith(".localhost"):
        return f"{host}:{port}"
    ip = literal(host)
    if ip is None or is_public(reached(str(ip))):
        return None
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address a host is written as, in the old short forms (`127.1`, `0x7f000001`) too."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    if not host[:1].isdigit():
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
