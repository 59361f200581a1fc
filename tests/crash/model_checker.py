"""The protocol of one run as a machine small enough to visit every state: two engines, one model call, one write with a key and one
without (which asks a person), a server, people, and every fault in every order.

One function per move; the legal moves of runs and calls are the tables of `runs.states`, so the model cannot leave them. A pause
needs no move: an engine that is not chosen while its lease lapses and its run is taken over is the zombie, and any later choice of
it is the zombie that goes on. Each guard of the protocol can be switched off, and then a violation must be found.

Assumed: what was sent is applied or lost before its deadline and the margin are over; an engine that holds its lease gets from a
commit to the socket within the margin; a process that is known dead sends nothing more; nobody takes a run without a lease.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from runs.states import CALL, DUE, NEW, OWNED, RUN, TERMINAL, CallState, RunState, legal

MODEL, KEYED, UNKEYED = 0, 1, 2
NAMES = ("model", "keyed write", "unkeyed write")
NOTHING = -1
DEAD = 2  # owner: an engine whose process is known dead; what starts in its place is another engine
DECIDE, FLUSH, UNREAD, GO, WAIT = "decide", "flush", "unread", "go", "wait"
NONE, PENDING, APPROVED, REVOKED, REJECTED, EXPIRED, VOID, CONSUMED = (
    "none", "pending", "approved", "approved by somebody who no longer may", "rejected", "expired", "void", "consumed",
)  # fmt: skip
ASKING = (PENDING, APPROVED, REVOKED)
C, R = CallState, RunState
UNSENT = (NEW, C.READY, C.WAITING_APPROVAL, C.BLOCKED, C.ABANDONED)  # of writes: the record says that nothing was sent
OPEN = (C.READY, C.WAITING_APPROVAL, C.DISPATCHED)
Rows = tuple[str, str, str]  # the calls' states by MODEL, KEYED, UNKEYED


@dataclass(frozen=True)
class Guards:
    fence: bool = True  # a commit names the fence it holds
    entry: bool = True  # ... and the number of its entry
    intent: bool = True  # a send follows the commit of its intent
    rev: bool = True  # a dispatch names the controls it was decided under
    cancel: bool = True  # a dispatch is refused once a cancel was asked for
    consume: bool = True  # an approval is checked and consumed in the transaction that dispatches
    lease_check: bool = True  # no socket without the lease
    lease_kept: bool = True  # ... which was held without a break since before the commit
    hold: bool = True  # no takeover of a living engine's run while its write may be answered
    unknown: bool = True  # a write without a key is not sent again after a takeover
    stable_key: bool = True  # every send of a call carries the same key
    run_lock: bool = True  # people's transactions lock the run
    quiescence: bool = True  # "not applied" is only said when nothing can be on its way
    this_send: bool = True  # that a send was never made settles that send, and no later one
    orphans: bool = True  # an engine takes its own run again when its coroutine has ended early


class Faults(NamedTuple):
    """How many of each may still happen."""

    crashes: int = 1
    lapses: int = 1
    losses: int = 1  # answers of the database, requests, replies
    changes: int = 1  # a permission becomes "deny"
    cancels: int = 1
    revocations: int = 1


class Flight(NamedTuple):
    """A run in an engine's memory. `rows`: the calls as it knows them; `plan`, `call`, `to`: the entry that is being written."""

    fence: int
    entry: int
    rows: Rows
    at: str
    plan: Rows
    denied: bool  # the controls it decides under
    call: int = NOTHING  # sent once the entry is durable
    to: str = ""
    cancel: bool = False
    kept: bool = True  # the lease, since before the commit
    wrong: str = ""  # history: why what was dispatched should not have been
    attempt: int = 0  # which send of the unkeyed write this is


class Engine(NamedTuple):
    up: bool = True
    lease: bool = True
    flight: Flight | None = None


GONE = Engine(up=False, lease=False)


class State(NamedTuple):
    run: str = R.QUEUED
    fence: int = 0
    entry: int = 0
    owner: int = NOTHING
    hold: bool = False
    cancel: bool = False
    denied: bool = False
    rows: Rows = (NEW, NEW, NEW)
    approval: str = NONE
    engines: tuple[Engine, Engine] = (Engine(), Engine())
    wire: frozenset[tuple[int, int, int]] = frozenset()  # (call, engine, key) sent, neither applied nor lost
    replies: frozenset[tuple[int, int]] = frozenset()  # (call, engine)
    keys: frozenset[int] = frozenset()  # keys under which the keyed write was applied
    effects: int = 0  # of the unkeyed write
    attempt: int = 0  # the last send of it that has an intent
    unsent: int = 0  # the send that, as its engine says, was never made
    person: tuple[str, Rows, str] | None = None  # a transaction that has looked (rows, run) and has not written yet
    left: Faults = Faults()
    bad: str = ""


class Illegal(Exception):
    pass


def moved(rows: Rows, to: Rows) -> Rows:
    """The database trigger on calls."""
    for old, new in zip(rows, to, strict=True):
        if old != new and not legal(CALL, old, new):
            raise Illegal(f"illegal move of a call: {old} -> {new}")
    return to


def run_to(s: State, to: str) -> str:
    if to != s.run and not legal(RUN, s.run, to):
        raise Illegal(f"illegal move of the run: {s.run} -> {to}")
    return to


def put(s: State, e: int, **changes: Any) -> State:
    """`s` with engine `e` changed."""
    engines = list(s.engines)
    engines[e] = engines[e]._replace(**changes)
    return s._replace(engines=(engines[0], engines[1]))


def with_row(rows: Rows, call: int, state: str) -> Rows:
    changed = list(rows)
    changed[call] = state
    return changed[0], changed[1], changed[2]


def locked(s: State, g: Guards) -> bool:
    return s.person is not None and g.run_lock


def holder(s: State) -> Engine:
    return GONE if s.owner == DEAD else s.engines[s.owner]


def on_wire(s: State, call: int) -> bool:
    return any(one == call for one, _, _ in s.wire)


# the engine -----------------------------------------------------------------------------------------------------------------------


def boarded(s: State, e: int, g: Guards) -> State:
    """Claimed: the flight starts from the rows. What the last owner had in flight: the model call failed, the write is unknown."""
    model, keyed, unkeyed = s.rows
    rows: Rows = (C.FAILED_NOT_APPLIED if model == C.DISPATCHED else model, keyed,
                  C.UNKNOWN if unkeyed == C.DISPATCHED and g.unknown else unkeyed)  # fmt: skip
    at = FLUSH if model == C.DISPATCHED else DECIDE  # one statement moves a row once: first that it failed, then the next attempt
    flight = Flight(s.fence + 1, 0, rows, at, rows, s.denied, cancel=s.cancel)
    taken = s._replace(run=run_to(s, R.RUNNING) if s.run in DUE else s.run, fence=s.fence + 1, entry=0, owner=e, hold=False)
    return put(taken, e, flight=flight)


def claim(s: State, e: int, g: Guards) -> Iterator[State]:
    if s.run in DUE and s.engines[e].lease and not s.engines[e].flight and not locked(s, g):
        yield boarded(s, e, g)


def take_over(s: State, e: int, g: Guards) -> Iterator[State]:
    if s.run not in OWNED or not s.engines[e].lease or s.engines[e].flight or locked(s, g):
        return
    owner = holder(s)
    free = g.orphans if s.owner == e else not owner.lease
    if not free or (g.hold and s.hold and owner.up):
        return
    taken = boarded(s, e, g)
    if owner.up and any(call != MODEL and sender == s.owner for call, sender, _ in s.wire):
        taken = taken._replace(bad="taken over while a living engine's write was in flight")
    yield taken


def planned(f: Flight, denied: bool) -> tuple[Rows, int, str]:
    """The loop of a run: rows to write, the call to send afterwards, the state to move to."""
    model, keyed, unkeyed = f.rows
    if f.cancel:
        return given_up(f.rows), NOTHING, R.CANCELLED
    if model in (NEW, C.FAILED_NOT_APPLIED):
        return (C.DISPATCHED, keyed, unkeyed), MODEL, ""
    if unkeyed == C.READY:
        return (model, keyed, C.BLOCKED if denied else C.DISPATCHED), NOTHING if denied else UNKEYED, ""
    send = NOTHING
    if denied:
        keyed = {NEW: C.BLOCKED, C.DISPATCHED: C.UNKNOWN}.get(keyed, keyed)
        unkeyed = {NEW: C.BLOCKED, C.DISPATCHED: C.UNKNOWN}.get(unkeyed, unkeyed)
    elif keyed in (NEW, C.FAILED_NOT_APPLIED, C.DISPATCHED):
        keyed, send = C.DISPATCHED, KEYED
    elif unkeyed in (C.FAILED_NOT_APPLIED, C.DISPATCHED):
        unkeyed, send = C.DISPATCHED, UNKEYED
    unkeyed = C.WAITING_APPROVAL if unkeyed == NEW else unkeyed
    rows = (model, keyed, unkeyed)
    if send != NOTHING or rows != f.rows:
        return rows, send, ""
    if C.UNKNOWN in rows:
        return rows, NOTHING, R.NEEDS_RECONCILIATION
    return rows, NOTHING, R.WAITING_APPROVAL if unkeyed == C.WAITING_APPROVAL else R.SUCCEEDED


def given_up(rows: Rows) -> Rows:
    """At the end of a run: what was not sent is abandoned, a write that was is unknown."""
    model, *writes = rows
    end = {C.READY: C.ABANDONED, C.WAITING_APPROVAL: C.ABANDONED, C.DISPATCHED: C.UNKNOWN}
    keyed, unkeyed = (end.get(C(w), w) if w != NEW else w for w in writes)
    return (C.ABANDONED if model == C.DISPATCHED else model), keyed, unkeyed


def decide(s: State, e: int, g: Guards) -> Iterator[State]:
    f = s.engines[e].flight
    if f is None or f.at != DECIDE:
        return
    denied = s.denied if f.rows[UNKEYED] == C.READY else f.denied  # an approved call is ruled on under the controls of now
    plan, call, to = planned(f, denied)
    f = f._replace(at=FLUSH, plan=plan, call=call, to=to, denied=denied, kept=s.engines[e].lease)
    if call != NOTHING and not g.intent:
        f = f._replace(at=GO, rows=plan)
    yield put(s, e, flight=f)


def commit(s: State, e: int, g: Guards) -> Iterator[State]:
    """The database takes the entry, or says why not. A row that a person holds answers `busy`: tried again later."""
    f = s.engines[e].flight
    if f is None or f.at != FLUSH or locked(s, g):
        return
    if g.fence and f.fence != s.fence:
        yield put(s, e, flight=None)  # stale
    elif g.entry and f.fence == s.fence and f.entry < s.entry:
        yield put(s, e, flight=f._replace(at=UNREAD))  # already
    elif f.call != NOTHING and ((g.rev and f.denied != s.denied) or (g.cancel and s.cancel)):
        yield put(s, e, flight=f._replace(at=DECIDE, denied=s.denied, cancel=s.cancel))  # recheck
    else:
        yield written(s, e, f, g)


def written(s: State, e: int, f: Flight, g: Guards) -> State:
    bad = "a stale engine's entry was written" if f.fence != s.fence else "an entry was written twice" if f.entry < s.entry else ""
    if bad:
        return s._replace(bad=bad)
    plan, approval, wrong = f.plan, s.approval, ""
    if f.call in (KEYED, UNKEYED):
        wrong = "it was denied" if s.denied else "a cancel was asked for" if s.cancel else ""
    if f.call == UNKEYED and s.rows[UNKEYED] == C.READY:
        if g.consume and approval != APPROVED:
            return put(s._replace(entry=s.entry + 1, approval=VOID, rows=moved(s.rows, with_row(s.rows, UNKEYED, C.BLOCKED))), e,
                       flight=f._replace(entry=f.entry + 1, at=DECIDE, rows=with_row(f.rows, UNKEYED, C.BLOCKED)))  # fmt: skip
        wrong = wrong or ("its approval was withdrawn" if approval != APPROVED else "")
        approval = CONSUMED if g.consume else approval
    run = run_to(s, f.to) if f.to else s.run
    if run == R.WAITING_APPROVAL:
        approval = PENDING
    elif plan[UNKEYED] in (C.BLOCKED, C.ABANDONED) and approval in ASKING:
        approval = VOID
    attempt = s.attempt + (f.call == UNKEYED)
    new = s._replace(rows=moved(s.rows, plan), run=run, entry=s.entry + 1, approval=approval, hold=f.call in (KEYED, UNKEYED),
                     owner=e if run in OWNED else NOTHING, attempt=attempt)  # fmt: skip
    return put(new, e, flight=f._replace(at=UNREAD, cancel=s.cancel, wrong=wrong, attempt=attempt))


def read_answer(s: State, e: int, g: Guards) -> Iterator[State]:
    f = s.engines[e].flight
    if f is not None and f.at == UNREAD:
        f = f._replace(entry=f.entry + 1, rows=f.plan, at=GO if f.call != NOTHING else DECIDE)
        yield put(s, e, flight=None if f.to else f)


def lose_answer(s: State, e: int, g: Guards) -> Iterator[State]:
    """The connection broke after the commit: the same entry is sent again."""
    f = s.engines[e].flight
    if f is not None and f.at == UNREAD and s.left.losses:
        yield put(s._replace(left=s.left._replace(losses=s.left.losses - 1)), e, flight=f._replace(at=FLUSH))


def send(s: State, e: int, g: Guards) -> Iterator[State]:
    f = s.engines[e].flight
    if f is None or f.at != GO:
        return
    if g.lease_check and not (s.engines[e].lease and (f.kept or not g.lease_kept)):
        yield put(s._replace(unsent=f.attempt) if f.call == UNKEYED else s, e, flight=None)
        return
    sent = s._replace(wire=s.wire | {(f.call, e, 0 if g.stable_key else f.fence)}, bad=wrong_to_send(s, f))
    yield put(sent, e, flight=f._replace(at=WAIT, wrong=""))


def wrong_to_send(s: State, f: Flight) -> str:
    if f.call != MODEL and s.rows[f.call] in UNSENT:
        return "sent without a committed intent"
    if f.call == UNKEYED and s.approval != CONSUMED:
        return f"sent under an approval that is {s.approval}"
    return f"dispatched and sent after {f.wrong}" if f.wrong else ""


def receive(s: State, e: int, g: Guards) -> Iterator[State]:
    f = s.engines[e].flight
    if f is not None and f.at == WAIT and (f.call, e) in s.replies:
        known = f._replace(at=DECIDE, rows=with_row(f.rows, f.call, C.DONE))
        yield put(s._replace(replies=s.replies - {(f.call, e)}), e, flight=known)


def give_up_waiting(s: State, e: int, g: Guards) -> Iterator[State]:
    """The wall deadline: the outcome is not known. A model call is asked again, a keyed write sent again while its purse lasts."""
    f = s.engines[e].flight
    if f is None or f.at != WAIT or (f.call, e) in s.replies or any((c, by) == (f.call, e) for c, by, _ in s.wire):
        return
    if f.call == MODEL:
        rows = with_row(f.rows, MODEL, C.FAILED_NOT_APPLIED)
        yield put(s, e, flight=f._replace(at=FLUSH, rows=rows, plan=rows, call=NOTHING))
        return
    if f.call == KEYED or not g.unknown:
        yield put(s, e, flight=f._replace(at=DECIDE))
    yield put(s, e, flight=f._replace(at=DECIDE, rows=with_row(f.rows, f.call, C.UNKNOWN)))


def lapse(s: State, e: int, g: Guards) -> Iterator[State]:
    engine = s.engines[e]
    if engine.up and engine.lease and s.left.lapses:
        flight = engine.flight and engine.flight._replace(kept=False)
        yield put(s._replace(left=s.left._replace(lapses=s.left.lapses - 1)), e, lease=False, flight=flight)


def renew(s: State, e: int, g: Guards) -> Iterator[State]:
    if s.engines[e].up and not s.engines[e].lease:
        yield put(s, e, lease=True)


def crash(s: State, e: int, g: Guards) -> Iterator[State]:
    """Requests that were sent stay on the wire; their answers find nobody."""
    if s.engines[e].up and s.left.crashes:
        wire = frozenset((call, NOTHING if by == e else by, key) for call, by, key in s.wire)
        replies = frozenset(reply for reply in s.replies if reply[1] != e)
        owner = DEAD if s.owner == e else s.owner
        dead = s._replace(owner=owner, wire=wire, replies=replies, left=s.left._replace(crashes=s.left.crashes - 1))
        yield put(dead, e, up=False, lease=False, flight=None)


def restart(s: State, e: int, g: Guards) -> Iterator[State]:
    if not s.engines[e].up:
        yield put(s, e, up=True, lease=True)


# time and the world ---------------------------------------------------------------------------------------------------------------


def hold_passes(s: State, g: Guards) -> Iterator[State]:
    if not s.hold or s.owner == NOTHING or any(call != MODEL for call, _, _ in s.wire):
        return
    owner = holder(s)
    if not (owner.lease and owner.flight and about_to_send(s, owner.flight)):
        yield s._replace(hold=False)


def about_to_send(s: State, f: Flight) -> bool:
    """Its intent is durable, whether it knows or not, and its request has not left."""
    return f.fence == s.fence and f.call != NOTHING and (f.at in (UNREAD, GO) or (f.at == FLUSH and f.entry < s.entry))


def server_applies(s: State, g: Guards) -> Iterator[State]:
    for call, e, key in s.wire:
        done = s._replace(wire=s.wire - {(call, e, key)})
        f = s.engines[e].flight if e != NOTHING else None
        if f is not None and f.at == WAIT and f.call == call:
            done = done._replace(replies=s.replies | {(call, e)})
        if call == KEYED:
            done = done._replace(keys=s.keys | {key})
        yield done._replace(effects=s.effects + (call == UNKEYED))


def lose_message(s: State, g: Guards) -> Iterator[State]:
    """A request before the server saw it, or a reply on its way back."""
    if s.left.losses:
        fewer = s._replace(left=s.left._replace(losses=s.left.losses - 1))
        yield from (fewer._replace(wire=s.wire - {message}) for message in s.wire)
        yield from (fewer._replace(replies=s.replies - {reply}) for reply in s.replies)


# people ---------------------------------------------------------------------------------------------------------------------------


def waits(s: State, g: Guards) -> bool:
    return s.run == R.WAITING_APPROVAL and s.approval == PENDING and not locked(s, g)


def verdict(s: State, rows: Rows, row: str, approval: str) -> State:
    changed = moved(s.rows, with_row(rows, UNKEYED, row))
    return s._replace(rows=changed, approval=approval, run=run_to(s, R.QUEUED))


def look_to_approve(s: State, g: Guards) -> Iterator[State]:
    if waits(s, g) and s.person is None:
        yield s._replace(person=("approve", s.rows, s.run))


def look_to_cancel(s: State, g: Guards) -> Iterator[State]:
    if s.run not in TERMINAL and not s.cancel and s.left.cancels and s.person is None:
        yield s._replace(person=("cancel", s.rows, s.run), left=s.left._replace(cancels=s.left.cancels - 1))


def finish(s: State, g: Guards) -> Iterator[State]:
    """The transaction writes what it decided when it looked. An illegal move rolls it back."""
    if s.person is None:
        return
    verb, rows, run = s.person
    free = s._replace(person=None)
    try:
        yield verdict(free, rows, C.READY, APPROVED) if verb == "approve" else cancelled(free, rows, run)
    except Illegal:
        yield free


def cancelled(s: State, rows: Rows, run: str) -> State:
    if run in OWNED:
        return s._replace(cancel=True)
    approval = VOID if s.approval in ASKING else s.approval
    return s._replace(run=run_to(s, R.CANCELLED), rows=moved(s.rows, given_up(rows)), approval=approval, fence=s.fence + 1, hold=False,
                      owner=NOTHING)  # fmt: skip


def reject(s: State, g: Guards) -> Iterator[State]:
    if waits(s, g):
        yield verdict(s, s.rows, C.BLOCKED, REJECTED)


def expire(s: State, g: Guards) -> Iterator[State]:
    if waits(s, g):
        yield verdict(s, s.rows, C.BLOCKED, EXPIRED)


def revoke(s: State, g: Guards) -> Iterator[State]:
    """Whoever approved loses the role for it."""
    if s.approval == APPROVED and s.left.revocations:
        yield s._replace(approval=REVOKED, left=s.left._replace(revocations=s.left.revocations - 1))


def deny(s: State, g: Guards) -> Iterator[State]:
    if not s.denied and s.left.changes:
        yield s._replace(denied=True, left=s.left._replace(changes=s.left.changes - 1))


def reconcile(s: State, g: Guards) -> Iterator[State]:
    """By what the server shows. "Not applied" authorises another send."""
    if s.run != R.NEEDS_RECONCILIATION or locked(s, g):
        return
    for call in (KEYED, UNKEYED):
        if s.rows[call] != C.UNKNOWN:
            continue
        applied = bool(s.keys) if call == KEYED else s.effects > 0
        if applied or not g.quiescence or not on_wire(s, call):
            rows = moved(s.rows, with_row(s.rows, call, C.DONE if applied else C.FAILED_NOT_APPLIED))
            yield s._replace(rows=rows, run=s.run if C.UNKNOWN in rows else run_to(s, R.QUEUED))


def use_testimony(s: State, g: Guards) -> Iterator[State]:
    """The engine that had committed the unknown send knows that it never made it: nothing can be on the wire, nobody needs to wait."""
    known = s.unsent and (s.unsent == s.attempt or not g.this_send)
    if known and s.run == R.NEEDS_RECONCILIATION and s.rows[UNKEYED] == C.UNKNOWN and not locked(s, g):
        rows = moved(s.rows, with_row(s.rows, UNKEYED, C.FAILED_NOT_APPLIED))
        yield s._replace(rows=rows, unsent=0, run=s.run if C.UNKNOWN in rows else run_to(s, R.QUEUED))


# what must hold -------------------------------------------------------------------------------------------------------------------


def violation(s: State) -> str:
    if s.bad:
        return s.bad
    if s.effects > 1:
        return "the unkeyed write was applied twice"
    if len(s.keys) > 1:
        return "the keyed write was applied twice"
    for call, applied in ((KEYED, bool(s.keys)), (UNKEYED, s.effects > 0)):
        if applied and s.rows[call] in UNSENT:
            return f"the record says that the {NAMES[call]} was not sent ({s.rows[call]}), but it was applied"
    if (s.run in OWNED) != (s.owner != NOTHING):
        return "owned exactly while an engine holds it: not so"
    if s.run in TERMINAL and (s.approval in ASKING or any(row in OPEN for row in s.rows)):
        return "the run ended with something open"
    return "the run succeeded although an outcome is unknown" if s.run == R.SUCCEEDED and C.UNKNOWN in s.rows else ""


BY_ENGINE: tuple[Callable[[State, int, Guards], Iterator[State]], ...] = (
    claim, take_over, decide, commit, read_answer, lose_answer, send, receive, give_up_waiting, lapse, renew, crash, restart,
)  # fmt: skip
BY_WORLD: tuple[Callable[[State, Guards], Iterator[State]], ...] = (
    hold_passes, server_applies, lose_message, look_to_approve, look_to_cancel, finish, reject, expire, revoke, deny, reconcile,
    use_testimony,
)  # fmt: skip


def following(s: State, g: Guards) -> Iterator[tuple[str, State]]:
    for e in (0, 1):
        for by_engine in BY_ENGINE:
            yield from named(s, f"{'AB'[e]}: {by_engine.__name__}", by_engine(s, e, g))
    for by_world in BY_WORLD:
        yield from named(s, by_world.__name__, by_world(s, g))


def named(s: State, label: str, news: Iterator[State]) -> Iterator[tuple[str, State]]:
    try:
        for new in news:
            yield label, new
    except Illegal as illegal:
        yield label, s._replace(bad=str(illegal))


@dataclass(frozen=True)
class Report:
    states: int
    moves: int
    seconds: float
    violation: str  # empty: none
    trace: tuple[str, ...]  # the moves that lead there, fewest first
    ends: frozenset[str]  # run states in which something came to rest


def explore(guards: Guards, faults: Faults) -> Report:
    """Every state that can be reached, breadth first, until one violates something; then whether each can still end."""
    began = time.perf_counter()
    first = State(left=faults)
    numbers, states, came = {first: 0}, [first], [(0, "")]
    edges: list[list[int]] = [[]]  # backwards
    queue, moves = deque([0]), 0

    def report(what: str, number: int = 0) -> Report:
        ends = frozenset(s.run for s in states if s.owner == NOTHING)
        return Report(len(states), moves, time.perf_counter() - began, what, trace(came, number), ends)

    while queue:
        here = queue.popleft()
        for label, new in following(states[here], guards):
            moves += 1
            number = numbers.get(new)
            if number is None:
                number = numbers[new] = len(states)
                states.append(new)
                came.append((here, label))
                edges.append([])
                if what := violation(new):
                    return report(what, number)
                queue.append(number)
            edges[number].append(here)
    lost = cannot_end(states, edges)
    return report("" if lost is None else "the run can never end from here", lost or 0)


def trace(came: list[tuple[int, str]], number: int) -> tuple[str, ...]:
    labels: list[str] = []
    while number:
        number, label = came[number]
        labels.append(label)
    return tuple(reversed(labels))


def cannot_end(states: list[State], edges: list[list[int]]) -> int | None:
    """The first state from which no terminal one can be reached."""
    todo = [number for number, s in enumerate(states) if s.run in TERMINAL]
    good = set(todo)
    while todo:
        for before in edges[todo.pop()]:
            if before not in good:
                good.add(before)
                todo.append(before)
    return next((number for number in range(len(states)) if number not in good), None)
