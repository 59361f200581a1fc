"""Whether a run goes in circles. Pure.

A call is a repetition when the same tool was asked with the same arguments (but for case and white space) `SEEN` times in this run
and every time got the same answer. That also stops cycles of any length, in their third round; polling for a change is none.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

SEEN = 2
ENDS_AFTER = 2  # turns in which calls were stopped as repetitions


def key(tool: str, args: bytes | None) -> str:
    """Equal for calls that ask for the same."""
    plain = json.dumps(folded(json.loads(args or b"null")), sort_keys=True, ensure_ascii=False)
    return f"{tool} {plain}"


def folded(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if isinstance(value, dict):
        return {name: folded(item) for name, item in value.items()}
    return [folded(item) for item in value] if isinstance(value, list) else value


def digest(result: Any) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()


def answers_alike(past: Iterable[tuple[str, Any]], wanted: str) -> int:
    """How often `wanted` was answered before if all of its answers are the same, else 0. `past`: (key, result) of settled calls."""
    found = [digest(result) for name, result in past if name == wanted]
    return len(found) if len(set(found)) == 1 else 0
