"""The `detectors` of a configuration document. One that it leaves out stays as it is: each kind has its own from the start."""

from tenants.actors import Actor

from .document import DetectorBlock
from .incidents import settings
from .incidents.parameters import DetectorSpec


def put(actor: Actor | None, block: DetectorBlock) -> tuple[str, settings.Action, tuple[str, ...]]:
    """-> (its name, what was done, what an update changed)."""
    given = DetectorSpec.model_validate(block.model_dump(exclude={"name"}, exclude_unset=True))
    _, action, fields = settings.put(actor, block.name, given, "configuration applied")
    return block.name, action, fields
