"""One reader for each web process: it reads the rows of what moved once and gives them to every socket that follows it.

No gap and no repeat by construction: each follower has the seq it was given last, the reader reads from the least of them, and
only the reader gives. Whoever follows is entered before the read, so nothing falls between."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from django.db import Error as DatabaseError
from psycopg_pool import PoolTimeout

from . import rows
from .hub import Hints, hub, now_us
from .rows import JSON, Counts, Object, Scope, Topic

log = logging.getLogger(__name__)
TOGETHER_S = 0.005  # hints of one moment make one read
LISTS_S = 0.2  # list topics speak this often at most
POLL_S = 5.0  # hints may be lost: look at the rows anyway
AGAIN_S = 1.0  # after a failed read
MANY = 50  # more objects than this in one go: fetch the list again
REMEMBERED = 20_000


class Outlet(Protocol):
    """One socket's end. `put` never waits."""

    def put(self, text: str) -> None: ...


class Feed:
    def __init__(self) -> None:
        self.runs: dict[UUID, dict[Outlet, int]] = {}  # run -> who follows it -> the seq given last
        self.lists: dict[Topic, set[Outlet]] = {}
        self.hints = Hints()
        self.task: asyncio.Task[None] | None = None
        self.reader = ThreadPoolExecutor(1, thread_name_prefix="live")
        self.listed: set[UUID] = set()  # runs that moved since the lists spoke
        self.all_listed = False
        self.next_lists = 0.0
        self.next_poll = 0.0
        self.told: dict[UUID, tuple[str, int]] = {}  # approval -> state and number of decisions, as they were told
        self.told_incidents: dict[UUID, tuple[str, str, int | None]] | None = None  # state, severity, owner; None: nobody asked yet
        self.told_counts: Counts = {}
        self.last_seq = 0

    # who follows what -------------------------------------------------------------------------------------------------

    def follow_run(self, outlet: Outlet, run: UUID, seq: int) -> None:
        """Give `outlet` every event of `run` after `seq`."""
        self.start()
        self.runs.setdefault(run, {})[outlet] = seq
        self.hints.add(run)

    def follow_list(self, outlet: Outlet, topic: Topic) -> None:
        self.start()
        self.lists.setdefault(topic, set()).add(outlet)

    def leave_run(self, outlet: Outlet, run: UUID) -> None:
        followers = self.runs.get(run, {})
        followers.pop(outlet, None)
        if not followers:
            self.runs.pop(run, None)

    def leave_list(self, outlet: Outlet, topic: Topic) -> None:
        followers = self.lists.get(topic, set())
        followers.discard(outlet)
        if not followers:
            self.lists.pop(topic, None)

    def seq(self) -> int:
        """Numbers for list topics: they rise within a process, and over its restarts as the clock does."""
        self.last_seq = max(self.last_seq + 1, now_us())
        return self.last_seq

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        if self.task is None or self.task.done() or self.task.get_loop() is not loop:
            self.runs, self.lists, self.hints = {}, {}, Hints()
            self.next_lists = self.next_poll = 0.0
            self.task = loop.create_task(self._work())

    # reading ----------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        with hub.gather(self.hints):
            while True:
                await self._woken()
                moved, lost = self.hints.take()
                try:
                    await self._round(moved, lost)
                except (DatabaseError, PoolTimeout) as error:
                    log.warning("live: cannot read (%s)", str(error).strip())
                    self.hints.lose()
                    await asyncio.sleep(AGAIN_S)

    async def _woken(self) -> None:
        now = asyncio.get_running_loop().time()
        until = min(self.next_poll, self.next_lists) if self.listed or self.all_listed else self.next_poll
        with suppress(TimeoutError):
            await asyncio.wait_for(self.hints.event.wait(), max(0.0, until - now))
        await asyncio.sleep(TOGETHER_S)

    async def _round(self, moved: set[UUID], lost: bool) -> None:
        loop = asyncio.get_running_loop()
        all_runs = lost or loop.time() >= self.next_poll
        if all_runs:
            self.next_poll = loop.time() + POLL_S
        after = {run: min(self.runs[run].values()) for run in (list(self.runs) if all_runs else moved & self.runs.keys())}
        listed, everything = self._lists_due(moved, lost)
        scopes = {scope for _, scope in self.lists} if listed or everything or all_runs else set()
        if not after and not scopes:
            return
        seen = await loop.run_in_executor(self.reader, rows.look, after, listed, scopes)
        self._give_events(seen, after)
        if scopes:
            self._give_lists(seen, listed, everything)

    def _lists_due(self, moved: set[UUID], lost: bool) -> tuple[set[UUID], bool]:
        """(runs to tell the lists of, whether to tell them to fetch all). Nothing while they spoke a moment ago: it adds up."""
        if self.lists:
            self.listed |= moved
            self.all_listed |= lost
        now = asyncio.get_running_loop().time()
        if now < self.next_lists or not (self.listed or self.all_listed):
            return set(), False
        self.next_lists = now + LISTS_S
        listed, everything = self.listed, self.all_listed or len(self.listed) > MANY
        self.listed, self.all_listed = set(), False
        return (set() if everything else listed), everything

    def _give_events(self, seen: rows.Seen, after: dict[UUID, int]) -> None:
        for run, events in seen.events.items():
            texts = rows.event_texts(events, seen.runs[run])
            for outlet, had in list(self.runs.get(run, {}).items()):
                if had < after[run]:  # came while we read, and wants older ones: the next round is for it
                    continue
                for seq, text in texts:
                    if seq > had:
                        outlet.put(text)
                if outlet in self.runs.get(run, {}):  # a full outlet leaves while it is given to
                    self.runs[run][outlet] = max(had, texts[-1][0])
        if seen.more:
            self.hints.add(*(run for run in after if run in self.runs))

    # lists ------------------------------------------------------------------------------------------------------------

    def _give_lists(self, seen: rows.Seen, listed: set[UUID], everything: bool) -> None:
        changed = [row for row in seen.approvals if self.told.get(row["id"]) != (row["state"], row["said"])]
        self.told |= {row["id"]: (row["state"], row["said"]) for row in changed}
        for old in list(self.told)[: max(0, len(self.told) - REMEMBERED)]:
            del self.told[old]
        moved = {
            "runs": [seen.runs[run] for run in listed if run in seen.runs],
            "approvals": changed,
            "incidents": self._changed_incidents(seen.incidents),
        }
        for (name, scope), outlets in list(self.lists.items()):
            mine = [row for row in moved[name] if scope is None or row["tenant_id"] == scope]
            objects = [rows.list_object(name, row, seen.runs) for row in mine]
            for text in self._texts(name, scope, objects, seen.counts, everything):
                for outlet in list(outlets):
                    outlet.put(text)
        self.told_counts = seen.counts

    def _changed_incidents(self, found: list[JSON]) -> list[JSON]:
        """The first read says nothing new: whoever follows has the page of a moment ago."""
        now = {row["id"]: (row["state"], row["severity"], row["owner_id"]) for row in found}
        changed = [row for row in found if self.told_incidents is not None and self.told_incidents.get(row["id"]) != now[row["id"]]]
        self.told_incidents = now
        return changed

    def _texts(self, name: str, scope: Scope, objects: list[Object], counts: Counts, everything: bool) -> list[str]:
        mine = {"counts": counts.get(scope, {})}
        first = [rows.reset(name, self.seq()), rows.message(name, self.seq(), None, "counts", mine)] if everything else []
        if everything or objects:
            return [*first, *(rows.message(name, self.seq(), v, k, d | mine) for k, v, d in objects)]
        if scope in self.told_counts and counts.get(scope) != self.told_counts[scope]:
            return [rows.message(name, self.seq(), None, "counts", mine)]
        return []


feed = Feed()
