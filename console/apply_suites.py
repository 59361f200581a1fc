"""The `suites` of a configuration document."""

from runs.evals import suites
from runs.evals.cases import read
from runs.evals.suites import Action, SuiteSpec
from tenants.actors import Actor
from tenants.errors import Refused


def put(actor: Actor | None, block: SuiteSpec) -> tuple[str, Action, tuple[str, ...]]:
    """-> (its name, what was done, what an update changed). A block that gives cases gives all of them: others are taken out."""
    suite, action = suites.put_suite(actor, block.name, block.description, block.tenants)
    if block.cases is None:
        return block.name, action, ("description or tenants",) if action == "update" else ()
    specs = []
    for index, value in enumerate(block.cases):
        try:
            specs.append(read(value))
        except Refused as refused:
            raise Refused(refused.code, f"cases[{index}]: {refused.message}", refused.status, **refused.fields) from None
    done = suites.put_cases(actor, suite, specs, prune=True)
    counts = {"new": len(done.created), "changed": len(done.updated), "gone": len(done.removed)}
    changed = tuple(f"{number} cases {word}" for word, number in counts.items() if number)
    if action == "create":
        return block.name, "create", ()
    fields = (*(("description or tenants",) if action == "update" else ()), *changed)
    return block.name, "update" if fields else "unchanged", fields
