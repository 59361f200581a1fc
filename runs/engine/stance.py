"""Where a run stands after the rungs it took. Pure."""

from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]
RESTORED = "restored"  # what led to a rung that no ladder has: the database was restored while the run was in flight


@dataclass(frozen=True, slots=True)
class Stance:
    """How the rungs that were taken change what the run may do. Made from them anew, so a resumed run stands where it stood."""

    mode: str  # normal, read_only or draft: the stricter of the run's own and the ladder's
    last_step: int | None = None  # no turn after this one
    single_after: int | None = None  # one model call without tools after this step, and that is the answer
    ask_writes: bool = False
    restored: bool = False  # a backup was restored under it: any write may have been made before

    def single_due(self, step: int) -> bool:
        """Whether the one turn without tools is still to come. `step`: the last one there is."""
        return self.single_after is not None and step <= self.single_after

    def out_of_steps(self, used: int) -> bool:
        """Whether the next turn is the last, so that it has to be the answer. `used`: steps taken."""
        return self.last_step is not None and used + 1 >= self.last_step

    @classmethod
    def after(cls, rungs: list[JSON], mode: str) -> "Stance":
        rungs = [entry for entry in rungs if not entry.get("missed")]
        done = {entry["do"] for entry in rungs}
        strictest = next(m for m in ("read_only", "draft", "normal") if m in (*done, mode, "normal"))
        last = min((entry["last_step"] for entry in rungs if "last_step" in entry), default=None)
        asked = any(entry["do"] == "ask" and not entry.get("limit") for entry in rungs)
        single = next((entry["step"] for entry in rungs if entry["do"] == "single_turn"), None)
        return cls(strictest, last, single, asked, is_restored(rungs))


def is_restored(rungs: list[JSON]) -> bool:
    return any(entry.get("on") == RESTORED for entry in rungs)
