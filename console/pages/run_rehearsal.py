"""What a run was rehearsed from: the run that it forks or shadows, or the case that it is."""

from typing import Any
from uuid import UUID

from runs.models import Run, Score
from runs.rehearsals import MODES
from tenants.ids import encode

Context = dict[str, Any]


def told(run: Run) -> Context:
    """`original`: the run to compare it with."""
    asked, fork = run.asked.rehearsal or {}, run.asked.fork or {}
    found: Context = {"changes_nothing": run.mode in MODES}
    if fork:
        found["fork_of"] = found["original"] = encode("agt", UUID(fork["of"]))
    elif asked.get("kind") == "shadow":
        found["shadow_of"] = found["original"] = encode("agt", UUID(asked["of"]))
    return found | (case_of(run) if asked.get("kind") == "eval" else {})


def case_of(run: Run) -> Context:
    score = Score.objects.filter(run_id=run.id, evaluation__isnull=False).select_related("evaluation__suite", "case").first()
    if score is None or score.evaluation is None:
        return {}
    return {"evaluation": str(score.evaluation), "suite": score.evaluation.suite.name, "case": score.case.key if score.case else ""}
