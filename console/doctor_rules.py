"""The rules of `doctor`: a name, what it means when it fails, what to do, and the statement that returns the offenders.

A statement returns an id and, optionally, the place within it. `%(runs)s` is the sample; see `doctor` for the other values.
"""

from dataclasses import dataclass

ENDED = "('succeeded', 'failed', 'cancelled')"
LIVES = "exists (select from engine where lease_until > statement_timestamp() and pid <> 0)"
SENT_WRITE = "c.ord > 0 and c.effect <> 'read' and c.dispatched_at is not null"
PLACE = "c.step || '.' || c.ord"


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    meaning: str
    cure: str
    sql: str
    prefix: str = "agt"
    warning: bool = False


def runs(where: str) -> str:
    return f"select r.id from run r where r.id = any(%(runs)s) and {where}"


def calls(where: str) -> str:
    return f"select r.id, {PLACE} from run r join call c on c.run_id = r.id where r.id = any(%(runs)s) and {where}"


def approvals(state: str, where: str) -> str:
    return f"""select a.id from run r join approvals_approval a on a.run_id = r.id
        left join call c on c.run_id = a.run_id and c.step = a.step and c.ord = a.ord
        where r.id = any(%(runs)s) and a.state = '{state}' and {where}"""


STOOD_IN = "coalesce(c.error_class, '') = 'rehearsed'"  # answered instead of sent, in a run that changes nothing


def counted(where: str) -> str:
    """`s`: sums over the run's calls."""
    return f"""select r.id from run r, lateral (
        select coalesce(sum(c.cost_micro), 0) as cost, coalesce(sum(c.tokens_in), 0) as tokens_in,
            coalesce(sum(c.tokens_out), 0) as tokens_out,
            count(*) filter (where c.ord > 0 and (c.dispatched_at is not null or {STOOD_IN})) as sent,
            count(*) filter (where {SENT_WRITE} or c.effect <> 'read' and {STOOD_IN}) as writes
        from call c where c.run_id = r.id) s
        where r.id = any(%(runs)s) and {where}"""


HOLDERS = """case when r.state in ('running', 'cancelling') then 'held' else 'free' end
    is distinct from case when r.owner is null then 'free' else 'held' end"""
NO_DECISION = f"""{SENT_WRITE} and c.decision->>'decision' is distinct from 'allow'
    and not exists (select from approvals_approval a where a.id = c.approval_id and a.state = 'consumed')
    and not exists (select from event e where e.run_id = c.run_id and e.kind = 'policy_decided'
        and (e.payload->>'step_id')::int = c.step and (e.payload->>'ord')::int = c.ord and e.payload->'data'->>'decision' = 'allow')"""
FOREIGN = "".join(
    f"""select r.id, '{table}' from run r join {table} x on x.run_id = r.id
        where r.id = any(%(runs)s) and x.tenant_id <> r.tenant_id {union}"""
    for table, union in (("call", "union "), ("event", "union "), ("step", "union "), ("approvals_approval", ""))
)

WAITING_RULES = (
    Rule(
        "lost_run", "A run is due for over a minute, engines live and have room, and none takes it.",
        "Restart the engines; if it stays, look at the run's row and the engines' log.",
        runs(f"""r.state in ('queued', 'waiting_timer') and r.available_at < statement_timestamp() - interval '60 seconds' and {LIVES}
            and (select count(*) from run where owner is not null) < %(slots)s * (select count(*) from engine
                where lease_until > statement_timestamp() and pid <> 0)"""),
    ),
    Rule(
        "stuck_run", "A run belongs to an engine whose lease is long over, and no living engine takes it over.",
        "Restart the engines; if it stays, look for a transaction that holds the run's row.",
        f"""select r.id from run r left join engine g on g.id = r.owner where r.owner is not null and {LIVES}
            and (g.id is null or g.lease_until < statement_timestamp() - make_interval(secs => 2 * %(ttl)s))
            and (r.hold_until is null or r.hold_until < statement_timestamp() - make_interval(secs => 2 * %(ttl)s))""",
    ),
    Rule(
        "run_past_deadline", "An engine holds a run whose deadline passed over a minute ago: nobody drives it any more.",
        "Restart the engine that owns it: another one takes the run over and ends it.",
        "select id from run r where owner is not null and deadline_at < statement_timestamp() - interval '60 seconds'"
        f" and exists (select from engine g where g.id = r.owner) and {LIVES}",
    ),
    Rule(
        "no_engine", "Runs wait for over a minute and no engine lives.", "Start an engine: `manage.py engine`, or `make run`.",
        runs(f"""(r.owner is not null or r.state in ('queued', 'waiting_timer'))
            and r.available_at < statement_timestamp() - interval '60 seconds' and not {LIVES}"""), warning=True,
    ),
    Rule(
        "owner_and_state_disagree", "A run has an owner without being driven, or is driven without an owner.",
        "Something wrote around the journal: find it, then queue the run again by hand.", runs(HOLDERS),
    ),
)  # fmt: skip

HISTORY_RULES = (
    Rule(
        "event_gap", "A run's events are not numbered 1 to its last one, each exactly once.",
        "Restore from a backup: history is never repaired by hand.",
        """select r.id from run r, lateral (select count(*) as n, min(seq) as low, max(seq) as high from event e where e.run_id = r.id) e
            where r.id = any(%(runs)s) and (e.n, e.high, e.low) is distinct from (r.seq, r.seq, 1::bigint)""",
    ),
    Rule(
        "event_before_acceptance", "A run's history does not begin with its acceptance, or it was accepted twice.",
        "Find what wrote these events: only `runs.intake` accepts.",
        runs("(select array_agg(e.seq) from event e where e.run_id = r.id and e.kind = 'run_accepted') is distinct from array[1::bigint]"),
    ),
    Rule(
        "end_not_told", "A run ended and its history does not say so once, or says so and it goes on.",
        "Find what moved the run without its event.",
        runs(f"(r.state in {ENDED})::int <> (select count(*) from event e where e.run_id = r.id and e.kind = 'run_completed')"),
    ),
    Rule(
        "end_without_outcome", "A run ended without an outcome and a time, or has them and goes on.", "Find what moved the run.",
        runs(f"(r.state in {ENDED}) <> (r.outcome is not null and r.ended_at is not null)"),
    ),
    Rule(
        "open_call_of_ended_run", "A run ended, but one of its calls is still to be decided, sent or answered.",
        "Settle the call: a write that was sent is unknown until somebody looks at the other side.",
        calls(f"r.state in {ENDED} and c.state in ('ready', 'waiting_approval', 'dispatched')"),
    ),
)  # fmt: skip

PEOPLE_RULES = (
    Rule(
        "waiting_without_approval", "A run waits for a person, but nobody is asked.", "Cancel the run and start it again.",
        runs("""r.state = 'waiting_approval' and not exists (select from approvals_approval a join call c
            on c.run_id = a.run_id and c.step = a.step and c.ord = a.ord
            where a.run_id = r.id and a.state = 'pending' and c.state = 'waiting_approval')"""),
    ),
    Rule(
        "approval_nobody_needs", "People are asked about a call that does not wait for them.", "Void the approval.",
        approvals("pending", """case a.kind when 'budget' then r.state not in ('waiting_budget', 'paused')
            else r.state not in ('waiting_approval', 'paused') or c.state is distinct from 'waiting_approval' end"""), "apr",
    ),
    Rule(
        "approval_overdue", "An approval's time was over minutes ago, and it still waits.", "Check that engines or jobs run.",
        approvals("pending", f"a.expires_at < statement_timestamp() - interval '150 seconds' and {LIVES}"), "apr",
    ),
    Rule(
        "approval_never_used", "An approval was given and the run ended without using or voiding it.", "Void the approval.",
        approvals("approved", f"a.kind = 'call' and r.state in {ENDED}"), "apr",
    ),
    Rule(
        "approval_used_for_nothing", "An approval is consumed, but its call was never sent.",
        "Find what consumed it outside of the dispatch.", approvals("consumed", "a.kind = 'call' and c.dispatched_at is null"), "apr",
    ),
    Rule(
        "budget_nobody_can_grant", "A run waits for more of its budget, and not exactly one request for it is open.",
        "Cancel the run and start it again.",
        runs("""r.state = 'waiting_budget' and 1 <> (select count(*) from approvals_approval a
            where a.run_id = r.id and a.kind = 'budget' and a.state = 'pending')"""),
    ),
)  # fmt: skip

SWITCH_RULES = (
    Rule(
        "paused_by_nothing", "A run is paused by a kill switch that was lifted over a minute ago.",
        "Check that engines run: they queue such runs each second. Else cancel the run.",
        runs(f"""r.state = 'paused' and r.paused_by is not null and {LIVES} and not exists (select from runs_switch s
            where s.id = r.paused_by and (s.lifted_at is null or s.lifted_at > statement_timestamp() - interval '60 seconds'))"""),
    ),
    Rule(
        "pause_and_state_disagree", "A run names the kill switch that pauses it, and is not paused.",
        "Find what moved the run: only a lift, a cancel or its end does.",
        runs("r.paused_by is not null and r.state <> 'paused'"),
    ),
)  # fmt: skip

CALL_RULES = (
    Rule(
        "effect_without_decision", "A write was sent that neither the policy allowed nor a person approved.",
        "Treat it as an incident: compare the call with what the other side received.", calls(NO_DECISION),
    ),
    Rule(
        "sent_and_forgotten", "A call was sent, and its run waits for people while nobody waits for the answer.",
        "Look at the other side, then cancel the run.",
        calls("c.state = 'dispatched' and r.state in ('waiting_approval', 'waiting_budget', 'needs_reconciliation')"),
    ),
    Rule(
        "unknown_and_passed_over", "The outcome of a write is unknown, and the run went on as if it were known.",
        "Look at the other side before you rely on the run's answer.",
        calls("c.state = 'unknown' and r.state in ('succeeded', 'waiting_approval', 'waiting_budget')"),
    ),
    Rule(
        "nothing_to_reconcile", "A run waits for a reconciliation, but none of its calls is unknown.", "Cancel the run.",
        runs("r.state = 'needs_reconciliation' and not exists (select from call c where c.run_id = r.id and c.state = 'unknown')"),
    ),
    Rule(
        "write_without_key", "A write was sent without its idempotency key, or two calls share one.",
        "Treat it as an incident: the other side cannot tell a repeat from a new write.",
        calls(f"""{SENT_WRITE} and (c.idem_key is null or exists (select from call d where d.tenant_id = c.tenant_id
            and d.idem_key = c.idem_key and (d.run_id, d.step, d.ord) <> (c.run_id, c.step, c.ord)))"""),
    ),
    Rule(
        "draft_sent", "A call that was kept as a draft was sent all the same.",
        "Treat it as an incident: a person was told that nothing had been sent.",
        calls("""c.ord > 0 and c.effect <> 'read' and exists (select from event d where d.run_id = c.run_id and d.kind = 'call_drafted'
            and (d.payload->>'step_id')::int = c.step and (d.payload->>'ord')::int = c.ord
            and (c.state not in ('blocked', 'failed_not_applied') or exists (select from event s where s.run_id = c.run_id and s.seq > d.seq
                and s.kind = 'tool_call_started' and (s.payload->>'step_id')::int = c.step and (s.payload->>'ord')::int = c.ord)))"""),
    ),
    Rule(
        "fence_behind", "A call was written under a fence that its run has not reached.",
        "Find what lowered the run's fence: an old engine could write again.", calls("c.fence > r.fence"),
    ),
    Rule(
        "no_answer", "A run succeeded, but the step named as its answer has none.", "Find what ended the run.",
        runs("""r.state = 'succeeded' and not exists (select from call c where c.run_id = r.id and c.step = r.answer_step and c.ord = 0
            and c.state = 'done' and c.result is not null)
            and not exists (select from run_input i where i.run_id = r.id and i.action is not null)"""),
    ),
)  # fmt: skip

COUNT_RULES = (
    Rule("money", "A run's cost is not the sum of its calls' costs.", "Correct the run from its calls.", counted("r.cost_micro <> s.cost")),
    Rule(
        "money_kept_back", "A run that nobody drives reserves money, although no model call is open.", "Set its reservation to 0.",
        runs("""r.reserved_micro <> 0 and r.state not in ('running', 'cancelling')
            and not exists (select from call c where c.run_id = r.id and c.step = r.step and c.ord = 0 and c.state = 'dispatched')"""),
    ),
    Rule(
        "tokens", "A run's tokens are not the sum of its calls' tokens.", "Correct the run from its calls.",
        counted("(r.tokens_in, r.tokens_out) <> (s.tokens_in, s.tokens_out)"),
    ),
    Rule(
        "billed_without_a_model", "A step that no model took has tokens or a cost.", "Correct the call and the run.",
        """select s.run_id, s.step::text from step s join call c on c.run_id = s.run_id and c.step = s.step and c.ord = 0
            where s.run_id = any(%(runs)s) and s.role in ('store', 'action') and (c.cost_micro, c.tokens_in, c.tokens_out) <> (0, 0, 0)""",
    ),
    Rule(
        "counters", "A run's counts of tool calls and writes are not those of its calls.", "Correct the run from its calls.",
        counted("(r.tool_calls, r.writes) <> (s.sent, s.writes)"),
    ),
)  # fmt: skip

CEILING_RULES = (
    Rule(
        "held_and_reserved_disagree", "What a ceiling's window holds is not the sum of what runs reserved in it.",
        "Find what wrote around `tenants.quotas`, then set the window's sum to that of its reservations.",
        """select s.id from (select * from tenants_spending order by id desc limit 2000) s where s.reserved_micro
            <> (select coalesce(sum(x.micro), 0) from tenants_reservation x where x.spending_id = s.id)""",
    ),
    Rule(
        "held_after_the_end", "A run has ended and still holds room under a ceiling, and no settlement waits to be folded.",
        "Give it back: write its settlement (run and cost), and the next sweep folds it.",
        f"""select distinct r.id from tenants_reservation x join run r on r.id = x.run_id where r.state in {ENDED}
            and not exists (select from tenants_settlement t where t.run_id = r.id)""",
    ),
)  # fmt: skip

PLACE_RULES = (
    Rule(
        "no_controls", "A tenant has no controls row, so none of its calls can be dispatched.", "Insert the row.",
        "select t.id from tenants_tenant t left join controls c on c.tenant_id = t.id where c.tenant_id is null", "ten",
    ),
    Rule(
        "foreign_release", "An agent's live release, or a run's, belongs to another agent.", "Promote a release of the agent's own.",
        """select a.name, 'live' from runs_agent a join runs_release v on v.id = a.live_id where v.agent_id <> a.name
            union all select r.agent_id, r.id::text from run r join runs_release v on v.id = r.release_id
            where r.id = any(%(runs)s) and v.agent_id <> r.agent_id""",
    ),
    Rule("foreign_tenant", "A part of a run belongs to another tenant.", "Treat it as an incident: one tenant may see the other.", FOREIGN),
    Rule(
        "audit_chain_broken", "The audit trail does not hold: an entry was changed, removed or put in around `tenants.audit`.",
        "Run `manage.py verify_audit`: it names the place and what to do.",
        """select v.chain, v.problem->>'seq' from tenants_auditverified v where v.problem is not null
            union all select h.chain, h.seq::text from tenants_audithead h
            where not exists (select from tenants_auditlink l where l.chain = h.chain and l.seq = h.seq and l.hash = h.hash)
            union all (select e.tenant_id, e.id::text from (select * from tenants_auditentry order by id desc limit 2000) e
            where not exists (select from tenants_auditlink l where l.entry_id = e.id))""", "ten",
    ),
    Rule(
        "jobs_silent", "The background jobs have not shown a sign of life for minutes.", "Start them: `manage.py jobs`, or `make run`.",
        "select 'jobs' where not exists (select from runs_canary where at > statement_timestamp() - interval '150 seconds')", warning=True,
    ),
    Rule(
        "telemetry_behind", "The receiver of telemetry has not taken the spans of a run for over fifteen minutes.",
        "See its last error on the overview, OTEL_EXPORTER_OTLP_ENDPOINT and the receiver. Until the buffer's age nothing is lost.",
        """select name from console_telemetryexport where failures > 0 and floor < statement_timestamp() - interval '15 minutes'
            and exists (select from run r where r.ended_at >= floor and r.ended_at < statement_timestamp() - interval '15 minutes'
                and not exists (select from console_telemetrysent s where s.run_id = r.id))""", warning=True,
    ),
    Rule(
        "telemetry_dropped", "Spans of runs were given up in the last day: too old before the receiver came back, or refused by it.",
        "Their runs, events and calls are all here. Look at the receiver, or raise SIGNALBOX_OTEL_BUFFER_S.",
        "select name from console_telemetryexport where dropped_at > statement_timestamp() - interval '1 day'", warning=True,
    ),
    Rule(
        "serving_role_too_strong",
        "The role that serves owns the tables or is a superuser: nothing protects the history from it, or tenants from each other.",
        "Give DATABASE_URL and DATABASE_ENGINE_URL plain roles, and the owner's to DATABASE_OWNER_URL only.",
        """select o.rolname from pg_roles o where o.rolname = any(%(serving)s) and (o.rolsuper
            or pg_has_role(o.oid, (select relowner from pg_class where oid = 'run'::regclass), 'member'))""", warning=True,
    ),
    Rule(
        "web_sees_all_tenants", "Pages are served by the engines' role: only the application's own filters keep tenants apart.",
        "Give DATABASE_URL a plain role of its own, and run `manage.py migrate` as the owner with all three addresses.",
        """select o.rolname from pg_roles o where o.rolname = %(web)s and %(confined)s = '' and not (o.rolsuper
            or pg_has_role(o.oid, (select relowner from pg_class where oid = 'run'::regclass), 'member'))""", warning=True,
    ),
    Rule(
        "tenants_unguarded", "PostgreSQL does not hold the role of the pages to the rows of a tenant in this table.",
        "Run `manage.py migrate` as the owner with all three addresses: it makes the policies anew.",
        """select c.relname::text from pg_class c, pg_roles o where o.rolname = %(confined)s and c.oid::regclass::text = any(%(guarded)s)
            and (not c.relrowsecurity or o.rolsuper or o.rolbypassrls
            or not exists (select from pg_policy p where p.polrelid = c.oid and o.oid = any(p.polroles))
            or exists (select from pg_policy p where p.polrelid = c.oid and p.polroles && array[o.oid, 0::oid]
                and pg_get_expr(p.polqual, p.polrelid) = 'true'))""",
    ),
    Rule(
        "history_writable", "A plain role may change or delete history.", "Run `manage.py migrate` as the owner: it gives the grants anew.",
        """select t, o.rolname::text from pg_roles o, unnest(%(history)s::text[]) t where o.rolname = any(%(serving)s) and not (o.rolsuper
            or pg_has_role(o.oid, (select relowner from pg_class where oid = 'run'::regclass), 'member'))
            and has_table_privilege(o.oid, t, 'update, delete, truncate')""",
    ),
    Rule(
        "triggers_missing", "A trigger that refuses illegal moves or changes of history is missing or switched off.",
        "Create it again from its migration, and find who removed it.",
        """select t from unnest(%(append_only)s::text[] || %(moves)s::text[]) t
            where not exists (select from pg_trigger g where g.tgname = t and g.tgenabled in ('O', 'A'))""",
    ),
)  # fmt: skip

RULES = (*WAITING_RULES, *HISTORY_RULES, *PEOPLE_RULES, *SWITCH_RULES, *CALL_RULES, *COUNT_RULES, *CEILING_RULES, *PLACE_RULES)
