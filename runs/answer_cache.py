"""What a question was answered before, by the same release for the same tenant and user."""

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import F
from django.db.models.functions import Now

from tenants import ids

from .models import Call, Run
from .states import Outcome


@dataclass(frozen=True, slots=True)
class Earlier:
    """`source`: which run it comes from, how old it is, and whether the question was word for word the same."""

    text: str
    source: dict[str, Any]


def input_key(text: str, data: Any, user: Any) -> str:
    """Equal for questions that are the same but for case, white space and Unicode form, asked for the same user."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(json.dumps([plain, data, user], sort_keys=True).encode()).hexdigest()


def earlier(tenant: UUID, release: UUID, key: str, asked: str) -> Earlier | None:
    """The newest whole answer of this tenant, release and question; one to the very same words before one to similar ones."""
    if not key:
        return None
    same = Run.objects.filter(tenant_id=tenant, release_id=release, asked__input_key=key, outcome=Outcome.COMPLETED)
    rows = same.exclude(answer_step=None).annotate(words=F("asked__text"), age=Now() - F("ended_at")).order_by("-id")[:20]
    for run in sorted(rows, key=lambda run: not asked.startswith(run.words)):
        call = Call.objects.filter(run_id=run.id, step=run.answer_step or 0, ord=0).first()
        text = (call.result or {}).get("text") if call else None
        if text:  # it may have been deleted
            exact = asked.startswith(run.words)
            return Earlier(text, {"from": ids.encode("agt", run.id), "age_s": round(run.age.total_seconds()), "exact": exact})
    return None
