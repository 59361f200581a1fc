"""The watchman: makes its rounds every few seconds and does small things that nobody waits for. A thread of the `jobs` process.

`ROUNDS` says what, one after the other. What fails is logged and tried again on the next round; it keeps none of the others from
their turn. More than one watchman may be on duty: each thing on the list is safe to do twice.
"""

import logging
import threading
from collections.abc import Callable

from django.db import connections

from runs import memory_people, shadows
from runs.evals import evaluations

from . import bulk_work, canary_watch, rollups
from .incidents import watch

log = logging.getLogger(__name__)
EVERY_S = 15.0
ROUNDS: tuple[Callable[[], object], ...] = (
    rollups.fold_due,
    watch.round,
    canary_watch.round,
    shadows.launch,
    evaluations.sweep,
    memory_people.tidy,
    bulk_work.round,
)


class Watchman:
    def __init__(self, rounds: tuple[Callable[[], object], ...] = ROUNDS, every_s: float = EVERY_S) -> None:
        self.rounds = rounds
        self.every_s = every_s
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._keep, name="watchman", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def ask_to_stop(self) -> None:
        """May be called from a signal handler."""
        self.over.set()

    def stop(self, timeout_s: float = 8.0) -> None:
        self.ask_to_stop()
        self.thread.join(timeout_s)

    def round(self) -> None:
        """Connections are closed after each: none is kept from one round to the next, and one that broke breaks nothing else."""
        for work in self.rounds:
            if self.over.is_set():
                return
            try:
                work()
            except Exception:
                log.exception("the watchman's %s failed and is tried again on the next round", getattr(work, "__qualname__", work))
            finally:
                connections.close_all()

    def _keep(self) -> None:
        while not self.over.is_set():
            self.round()
            self.over.wait(self.every_s)
