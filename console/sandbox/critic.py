"""The simulated model as a critique: a request that holds `{"request", "proposed", ...}` gets a verdict.

It fails an answer that promises money, and whatever the request says to fail (`#critic fail`, `#critic nonsense`).
"""

from __future__ import annotations

import json
import re
from typing import Any

_PROMISES = re.compile(r"\b(guarantee|promise|will be refunded|have refunded)\b", re.I)


def critique(text: str) -> dict[str, Any] | None:
    """The turn of a critique; None when the text asks for none."""
    try:
        material = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(material, dict) or not {"request", "proposed"} <= set(material):
        return None
    request, proposed = str(material["request"]), json.dumps(material["proposed"])
    if "#critic nonsense" in request:
        return {"text": "Looks fine to me!"}
    if "#critic fail" in request:
        return {"text": json.dumps({"verdict": "fail", "reasons": ["The request says so."]})}
    if _PROMISES.search(proposed):
        return {"text": json.dumps({"verdict": "fail", "reasons": ["It promises money, which nobody has decided."]})}
    return {"text": json.dumps({"verdict": "pass", "reasons": []})}
