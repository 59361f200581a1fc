"""The runtime's own memory tools as rows of the registry, made when the first release uses them."""

from tenants.actors import Actor
from tools import catalog, memory

from .spec import ReleaseSpec


def ensure(actor: Actor | None, spec: ReleaseSpec) -> ReleaseSpec:
    """The release with the tools that its `memory` brings, which are there afterwards."""
    if spec.memory is None:
        return spec
    brought = memory.listed(sensitive=spec.memory.sensitive)
    for name in brought:
        catalog.put(actor, name, memory.SPECS[name])
    return spec.model_copy(update={"tools": (*spec.tools, *(name for name in brought if name not in spec.tools))})
