"""What is pinned of a remote tool, and what is different when it is seen again. Pure."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from tools.canonical import check_depth, clean, dumps

JSON = dict[str, Any]
MAX_LINES: Final = 60
_SHOWN: Final = 2000


def definition(url: str, server: str, tool: Mapping[str, Any]) -> JSON:
    """The whole of what a server says of a tool, and who says it. Raises ValueError when it is nested too deeply."""
    check_depth(dict(tool), 40)
    made: JSON = clean({"server": {"url": url, "name": server}, "tool": dict(tool)})[0]
    return made


def digest(pinned: Mapping[str, Any]) -> str:
    return sha256(dumps(dict(pinned))).hexdigest()


def differences(before: Mapping[str, Any], after: Mapping[str, Any] | None) -> list[JSON]:
    """`{"path", "before", "after"}` for each place that differs, as text; None: not there. At most MAX_LINES of them."""
    if after is None:
        return [{"path": "/tool", "before": "offered", "after": None}]
    was, now = dict(leaves(before, "")), dict(leaves(after, ""))
    paths = [path for path in {**was, **now} if was.get(path) != now.get(path)]
    lines = [{"path": path, "before": was.get(path), "after": now.get(path)} for path in sorted(paths)]
    if len(lines) <= MAX_LINES:
        return lines
    return [*lines[:MAX_LINES], {"path": "…", "before": None, "after": f"{len(lines) - MAX_LINES} more differences"}]


def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every leaf with its pointer; an empty list or object is one."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}/{index}")
    else:
        text = value if isinstance(value, str) else dumps(value).decode()
        short = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… {sha256(text.encode()).hexdigest()[:12]}"
        yield path or "/", short
