"""Accepting runs that change nothing: a real input once more on another release, or the case of a suite."""

from typing import Any

from django.db import transaction

from tenants.models import Tenant, User

from .intake import place, usable
from .models import Release, Run, RunInput
from .rehearsals import Reads
from .spec import ReleaseSpec, limits

JSON = dict[str, Any]


@transaction.atomic
def accept(
    asked: RunInput, *, kind: str, tenant: Tenant, release: Release, starter: User, reads: Reads = "live", mode: str = "normal",
    results: list[JSON] | None = None, of: str | None = None, **about: str,
) -> Run:  # fmt: skip
    """`asked`: text, data, user, session, metadata; its limits are the release's own. `results`: as in `rehearsals.Rehearsal`.

    `of`: the run whose results answer (a uuid). `about`: ids that say what it belongs to. Refuses as intake does: a ceiling holds for
    a rehearsal too, since its model calls cost the same.
    """
    current, _, now = usable(tenant, release.agent_id)
    asked.limits = limits(ReleaseSpec.model_validate(release.spec)).model_dump(mode="json")
    asked.rehearsal = {"kind": kind, "reads": reads, "mode": mode, "results": results or [], "of": of, **about}
    return place(asked, tenant=current, release=release, starter=starter, mode=kind, now=now)


def same_question(first: RunInput, **metadata: Any) -> RunInput:
    """What a real run was asked, to be asked again."""
    return RunInput(
        text=first.text, data=first.data, user=first.user, session=first.session, metadata={**first.metadata, **metadata},
        traceparent=first.traceparent,
    )  # fmt: skip
