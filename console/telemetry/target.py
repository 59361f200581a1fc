"""Where telemetry goes, as the environment says it. Pure."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

PROTOCOLS = {"http/protobuf": "application/x-protobuf", "http/json": "application/json"}
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
OURS = ("content-type", "content-length", "host", "transfer-encoding", "connection")


@dataclass(frozen=True, slots=True)
class Target:
    """`host_port`: the operator who set the address allows it, for telemetry alone. `headers` may hold secrets."""

    url: str
    host_port: str
    protocol: str
    headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"<Target {self.host_port}>"

    @property
    def content_type(self) -> str:
        return PROTOCOLS[self.protocol]


def target(endpoint: str, headers: str = "", protocol: str = "") -> Target | None:
    """None: nothing is exported. Raises ValueError, naming the setting, for what cannot be used; it never quotes a header's value."""
    if not endpoint:
        return None
    protocol = protocol or "http/protobuf"
    if protocol not in PROTOCOLS:
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is one of {', '.join(PROTOCOLS)}.")
    return Target(endpoint.rstrip("/") + "/v1/traces", host_port(endpoint), protocol, tuple(pairs(headers)))


def host_port(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("OTEL_EXPORTER_OTLP_ENDPOINT is an address such as http://collector:4318, without a name, query or fragment.")
    return f"[{parts.hostname}]:{port}" if ":" in parts.hostname else f"{parts.hostname}:{port}"


def pairs(headers: str) -> list[tuple[str, str]]:
    """`name=value,name=value`, values percent-encoded."""
    found = []
    for one in filter(None, (part.strip() for part in headers.split(","))):
        name, equals, value = one.partition("=")
        name, value = name.strip(), unquote(value.strip())
        if not equals or not TOKEN.fullmatch(name) or name.lower() in OURS or not value.isascii() or not value.isprintable():
            raise ValueError("OTEL_EXPORTER_OTLP_HEADERS is a list such as name=value,other=value, with values percent-encoded.")
        found.append((name, value))
    return found
