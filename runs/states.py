"""The one table of legal moves, for runs and for calls. Write modules, the database triggers and the docs all read it.

A row is `target: (sources)`; `NEW` stands for "no row yet".
"""

from enum import StrEnum

NEW = "NEW"


class RunState(StrEnum):
    QUEUED = "queued"  # waits for an engine with a free slot; any engine moves it on; a crash leaves it here
    RUNNING = "running"  # an engine owns it; after a crash another takes it over once the lease (and hold) is past
    WAITING_APPROVAL = "waiting_approval"  # a person decides; nobody owns it; the decision or the expiry queues it
    WAITING_TIMER = "waiting_timer"  # a back-off over 2 s; any engine claims it when `available_at` has come
    WAITING_BUDGET = "waiting_budget"  # a ceiling was met and a person may grant more
    NEEDS_RECONCILIATION = "needs_reconciliation"  # the outcome of a write is unknown; evidence or a person settles it
    QUARANTINED = "quarantined"  # took engines down repeatedly; a person looks at it
    PAUSED = "paused"  # a person or a switch stopped it between calls; the same lets it go on
    CANCELLING = "cancelling"  # cancelled while a call was in flight; its engine finishes the move
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CallState(StrEnum):
    READY = "ready"  # decided and allowed, not yet sent
    WAITING_APPROVAL = "waiting_approval"  # a person decides
    BLOCKED = "blocked"  # refused by policy, validation, a person, or kept as a draft; never sent
    DISPATCHED = "dispatched"  # the intent is durable; from here on it may have been sent
    DONE = "done"  # answered; a write is applied
    FAILED_NOT_APPLIED = "failed_not_applied"  # answered with an error, or certainly not sent; may be tried again
    UNKNOWN = "unknown"  # a write that may or may not be applied; never sent again by itself
    ABANDONED = "abandoned"  # given up before it was sent, or settled as "nobody will know"


R, C = RunState, CallState

RUN: dict[str, tuple[str, ...]] = {
    R.QUEUED: (NEW, R.WAITING_APPROVAL, R.WAITING_TIMER, R.WAITING_BUDGET, R.NEEDS_RECONCILIATION, R.PAUSED, R.RUNNING, R.QUARANTINED),
    R.RUNNING: (R.QUEUED, R.WAITING_TIMER),
    R.WAITING_APPROVAL: (R.RUNNING,),
    R.WAITING_TIMER: (R.RUNNING,),
    R.WAITING_BUDGET: (R.RUNNING,),
    R.NEEDS_RECONCILIATION: (R.RUNNING, R.CANCELLING),
    R.QUARANTINED: (R.RUNNING, R.CANCELLING),
    R.PAUSED: (R.QUEUED, R.RUNNING, R.WAITING_APPROVAL, R.WAITING_TIMER, R.WAITING_BUDGET),
    R.CANCELLING: (R.RUNNING,),
    R.SUCCEEDED: (R.RUNNING,),
    R.FAILED: (R.RUNNING, R.QUARANTINED),
    R.CANCELLED: (
        R.QUEUED, R.RUNNING, R.CANCELLING, R.PAUSED, R.WAITING_APPROVAL, R.WAITING_TIMER, R.WAITING_BUDGET,
        R.NEEDS_RECONCILIATION, R.QUARANTINED,
    ),
}  # fmt: skip

CALL: dict[str, tuple[str, ...]] = {
    C.READY: (NEW, C.WAITING_APPROVAL),
    C.WAITING_APPROVAL: (NEW, C.READY, C.FAILED_NOT_APPLIED),
    C.BLOCKED: (NEW, C.READY, C.WAITING_APPROVAL),
    C.DISPATCHED: (NEW, C.READY, C.FAILED_NOT_APPLIED),
    C.DONE: (C.DISPATCHED, C.UNKNOWN),
    C.FAILED_NOT_APPLIED: (C.DISPATCHED, C.UNKNOWN),
    C.UNKNOWN: (C.DISPATCHED,),
    C.ABANDONED: (C.READY, C.WAITING_APPROVAL, C.UNKNOWN, C.DISPATCHED),
}

OWNED = (R.RUNNING, R.CANCELLING)  # an engine holds the run exactly in these states
TERMINAL = (R.SUCCEEDED, R.FAILED, R.CANCELLED)
PEOPLE = (R.WAITING_APPROVAL, R.WAITING_BUDGET, R.NEEDS_RECONCILIATION, R.PAUSED)  # the deadline stands still here
DUE = (R.QUEUED, R.WAITING_TIMER)  # claimable once `available_at` has come


class Outcome(StrEnum):
    COMPLETED = "completed"
    COMPLETED_DEGRADED = "completed_degraded"
    MODEL_ERROR = "model_error"
    TOOL_ERROR = "tool_error"
    INVALID_OUTPUT = "invalid_output"
    EMPTY_ANSWER = "empty_answer"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    CONTENT_FILTERED = "content_filtered"
    LOOP_DETECTED = "loop_detected"
    BUDGET_EXCEEDED = "budget_exceeded"
    STEP_LIMIT = "step_limit"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    POLICY_DENIED = "policy_denied"
    APPROVAL_REJECTED = "approval_rejected"
    APPROVAL_EXPIRED = "approval_expired"
    STOPPED_BY_SWITCH = "stopped_by_switch"
    CANCELLED = "cancelled"


def legal(table: dict[str, tuple[str, ...]], source: str, target: str) -> bool:
    return source in table.get(target, ())


def trigger_sql(name: str, table: dict[str, tuple[str, ...]]) -> str:
    """The row trigger that refuses every move outside `table` with SQLSTATE SBX01.

    One generated comparison, no look-up; `WHEN` keeps it silent on the updates that move nothing, which are most of them.
    """

    def among(states: tuple[str, ...]) -> str:
        return ",".join(f"'{s}'" for s in states if s != NEW)

    moves = " or ".join(f"(new.state = '{to}' and old.state in ({among(sources)}))" for to, sources in table.items() if among(sources))
    births = ",".join(f"'{to}'" for to, sources in table.items() if NEW in sources)
    return f"""
create or replace function {name}_moves() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    if new.state in ({births}) then return new; end if;
    raise exception 'illegal move of {name}: new -> %', new.state using errcode = 'SBX01';
  end if;
  if {moves} then return new; end if;
  raise exception 'illegal move of {name}: % -> %', old.state, new.state using errcode = 'SBX01';
end $$;
drop trigger if exists {name}_moves_u on {name};
drop trigger if exists {name}_moves_i on {name};
create trigger {name}_moves_u before update of state on {name} for each row
  when (old.state is distinct from new.state) execute function {name}_moves();
create trigger {name}_moves_i before insert on {name} for each row execute function {name}_moves();
"""
