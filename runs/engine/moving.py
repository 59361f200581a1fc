"""A run of a release that was taken back goes on with another one: from its next step, with the steps it has."""

from uuid import UUID

from runs.events import Kind, event
from runs.inference.transcript import Transcript
from tenants.ids import encode
from tools.models import ToolVersion

from .flight import Flight, Intent
from .services import Services


def due(f: Flight) -> UUID | None:
    """The release to go on with; None: the run stays, or stands in the middle of a step."""
    to = f.snapshot.moves.get(f.release.id)
    turn = f.turn
    between = turn is None or turn.settled or turn.state is None
    return to if between and f.action is None else None


async def move(f: Flight, e: Services, to: UUID) -> None:
    if (turn := f.turn) and not turn.settled:
        f.turns.remove(turn)  # opened for the old release, and not asked yet
    release = await e.definitions.release(to)
    data = {"from": encode("rel", f.release.id), "to": encode("rel", to)}
    told = event(Kind.RELEASE_CHANGED, step_id=f.turns[-1].step if f.turns else None, data=data)
    await f.commit(Intent(events=[told], rare={"release_id": str(to)}))
    f.release = release
    f.messages = Transcript(({"role": "system", "content": release.spec.instructions}, *f.messages[1:]))
    await remember(f, e)


async def remember(f: Flight, e: Services) -> None:
    """What calls of tools that this release does not have brought in, stays."""
    gone = {c.version for turn in f.turns for c in turn.calls if c.version and c.name not in f.release.tools and c.result is not None}
    if gone:
        f.labels |= await e.orm(labels, gone)


def labels(versions: set[UUID]) -> frozenset[str]:
    return frozenset(label for found in ToolVersion.objects.filter(id__in=versions).values_list("labels", flat=True) for label in found)
