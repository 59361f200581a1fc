"""The statements of the hot path. Everything per run happens under one fence check, in one statement, for many runs at once."""

import re


def numbered(statement: str) -> tuple[str, list[str]]:
    """`%(name)s` places -> `$1`, `$2` ..., and the names in that order."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    for number, name in enumerate(names, 1):
        statement = statement.replace(f"%({name})s", f"${number}")
    return statement, names


# One journal flush. `held` is the fence: everything below joins it, so an entry is written whole or not at all. It never waits for
# a row (SKIP LOCKED), so one slow transaction elsewhere holds up nobody, and it can be in no deadlock over run rows.
FLUSH = """
with e as (
  select * from unnest(%(run)s::uuid[], %(fence)s::int8[], %(entry)s::int8[], %(rev)s::int8[], %(state)s::text[], %(step)s::int8[],
      %(tokens_in)s::int8[], %(tokens_out)s::int8[], %(cost)s::int8[], %(reserve)s::int8[], %(hold)s::float8[],
      %(tool_calls)s::int8[], %(writes)s::int8[], %(rare)s::text[], %(events)s::int8[])
    as t(run_id, fence, entry, rev, state, step, tokens_in, tokens_out, cost, reserve, hold, tool_calls, writes, rare, events)
), held as materialized (
  select r.id, r.tenant_id, r.seq as base, e.fence, e.entry, e.state, e.step, e.tokens_in, e.tokens_out, e.cost, e.reserve, e.hold,
      e.tool_calls, e.writes, e.rare::jsonb as rare, e.events
  from e join run r on r.id = e.run_id
  where r.fence = e.fence and r.entry = e.entry - 1
    and (e.rev is null or not r.cancel_requested and exists (select 1 from controls c where c.tenant_id = r.tenant_id and c.rev = e.rev))
  order by r.id
  for no key update of r skip locked
), moved as (
  update run r set seq = h.base + h.events, entry = h.entry, state = coalesce(h.state, r.state), step = coalesce(h.step, r.step),
      tokens_in = r.tokens_in + h.tokens_in, tokens_out = r.tokens_out + h.tokens_out, cost_micro = r.cost_micro + h.cost,
      reserved_micro = h.reserve, tool_calls = r.tool_calls + h.tool_calls, writes = r.writes + h.writes,
      takeovers = case when h.tokens_out + h.tool_calls > 0 then 0 else r.takeovers end,
      hold_until = statement_timestamp() + make_interval(secs => h.hold),
      owner = case when coalesce(h.state, r.state) in ('running', 'cancelling') then r.owner end,
      outcome = coalesce(h.rare->>'outcome', r.outcome), stop = coalesce(h.rare->'stop', r.stop),
      last_error = coalesce(h.rare->'last_error', r.last_error),
      answer_step = coalesce((h.rare->>'answer_step')::int, r.answer_step),
      unpriced = coalesce((h.rare->>'unpriced')::bool, r.unpriced), rungs = coalesce(h.rare->'rungs', r.rungs),
      paused_by = coalesce((h.rare->>'paused_by')::uuid, r.paused_by),
      release_id = coalesce((h.rare->>'release_id')::uuid, r.release_id),
      available_at = coalesce(statement_timestamp() + make_interval(secs => (h.rare->>'available_s')::float8), r.available_at),
      waiting_since = case when h.rare ? 'waiting' then statement_timestamp() else r.waiting_since end,
      ended_at = case when h.rare ? 'outcome' then statement_timestamp() else r.ended_at end
  from held h where r.id = h.id
  returning r.id, h.base, r.cancel_requested
), stepped as (
  insert into step(run_id, step, tenant_id, role, model, calls)
  select x.run_id, x.step, h.tenant_id, x.role, x.model, x.calls
  from unnest(%(s_run)s::uuid[], %(s_step)s::int8[], %(s_role)s::text[], %(s_model)s::text[], %(s_calls)s::int8[])
    as x(run_id, step, role, model, calls) join held h on h.id = x.run_id
), changed as (                        -- calls that exist: results, further attempts
  update call c set state = x.state, name = coalesce(x.name, c.name), result = coalesce(x.result::jsonb, c.result),
      error_class = x.error, attempt = x.attempt, fence = h.fence, decision = coalesce(x.decision::jsonb, c.decision),
      dispatched_at = case when x.deadline is not null then clock_timestamp() else c.dispatched_at end,
      send_deadline = coalesce(statement_timestamp() + make_interval(secs => x.deadline), c.send_deadline),
      ended_at = case when x.state in ('done', 'failed_not_applied', 'unknown', 'blocked', 'abandoned') then clock_timestamp() end,
      latency_ms = coalesce(x.latency, c.latency_ms), tokens_in = c.tokens_in + coalesce(x.tin, 0),
      tokens_out = c.tokens_out + coalesce(x.tout, 0), cost_micro = c.cost_micro + coalesce(x.cost, 0)
  from unnest(%(u_run)s::uuid[], %(u_step)s::int8[], %(u_ord)s::int8[], %(u_state)s::text[], %(u_name)s::text[], %(u_result)s::text[],
      %(u_error)s::text[], %(u_attempt)s::int8[], %(u_decision)s::text[], %(u_deadline)s::float8[], %(u_latency)s::int8[],
      %(u_tin)s::int8[], %(u_tout)s::int8[], %(u_cost)s::int8[])
      as x(run_id, step, ord, state, name, result, error, attempt, decision, deadline, latency, tin, tout, cost)
    join held h on h.id = x.run_id
  where c.run_id = x.run_id and c.step = x.step and c.ord = x.ord
), planned as (                        -- calls that are new: the intent (`dispatched`), or refused before they were sent
  insert into call(run_id, step, ord, tenant_id, state, name, tool_version_id, effect, provider_id, args, idem_key, decision, fence,
      attempt, dispatched_at, send_deadline, ended_at, result, error_class)
  select x.run_id, x.step, x.ord, h.tenant_id, x.state, x.name, x.version, x.effect, x.provider, x.args, x.idem_key, x.decision::jsonb,
      h.fence, x.attempt, case when x.state = 'dispatched' then clock_timestamp() end,
      statement_timestamp() + make_interval(secs => x.deadline), case when x.state = 'blocked' then clock_timestamp() end,
      x.result::jsonb, x.error
  from unnest(%(i_run)s::uuid[], %(i_step)s::int8[], %(i_ord)s::int8[], %(i_state)s::text[], %(i_name)s::text[], %(i_version)s::uuid[],
      %(i_effect)s::text[], %(i_provider)s::text[], %(i_args)s::bytea[], %(i_key)s::text[], %(i_decision)s::text[],
      %(i_attempt)s::int8[], %(i_deadline)s::float8[], %(i_result)s::text[], %(i_error)s::text[])
      as x(run_id, step, ord, state, name, version, effect, provider, args, idem_key, decision, attempt, deadline, result, error)
    join held h on h.id = x.run_id
), told as (
  insert into event(run_id, seq, tenant_id, kind, payload, at)
  select x.run_id, h.base + x.n, h.tenant_id, x.kind, x.payload::jsonb, clock_timestamp()
  from unnest(%(e_run)s::uuid[], %(e_n)s::int8[], %(e_kind)s::text[], %(e_payload)s::text[]) as x(run_id, n, kind, payload)
    join held h on h.id = x.run_id
)
select e.run_id, case when m.id is not null then 'ok' when r.id is null or r.fence <> e.fence then 'stale'
    when r.entry >= e.entry then 'already'
    when e.rev is not null and (r.cancel_requested
      or not exists (select 1 from controls c where c.tenant_id = r.tenant_id and c.rev = e.rev)) then 'recheck'
    else 'busy' end, m.base, coalesce(m.cancel_requested, r.cancel_requested)
from e left join moved m on m.id = e.run_id left join run r on r.id = e.run_id
"""

_TAKEN = """
  returning r.id, r.tenant_id, r.agent_id, r.release_id, r.mode, r.fence, r.seq, r.step, r.tool_calls, r.writes, r.tokens_in,
      r.tokens_out, r.cost_micro, r.reserved_micro, r.unpriced, r.cancel_requested, r.takeovers, r.starter_id, r.rungs,
      extract(epoch from r.deadline_at - statement_timestamp())::float8 as left_s
), told as (
  insert into event(run_id, seq, tenant_id, kind, payload, at) select id, seq, tenant_id, {kind}, '{{"v":1}}', clock_timestamp() from c
)
select c.*, (select rev from controls where tenant_id = c.tenant_id) as rev, i.text, i.data, i."user", i.limits, i.traceparent, i.retry_of,
    i.action, i.input_key, i.rehearsal, i.fork
from c join run_input i on i.run_id = c.id
"""

# Runs that are due, fairly: an index skip from tenant to tenant, the first few of each (those that somebody waits for in front), and then
# in turns, as if each run that this engine drives had been a turn of its tenant. `deep`: how many are looked at; more than `n`, since
# other engines may hold the first ones in this moment. Predicates the index can answer (statement_timestamp() is stable).
FEW = 4  # of a tenant are looked at in any case: who takes fewer has taken what there is
_DUE = "state in ('queued', 'waiting_timer')"
CLAIM = f"""
with recursive t as (
  (select tenant_id from run where {_DUE} order by tenant_id limit 1)
  union all
  select (select r.tenant_id from run r where {_DUE} and r.tenant_id > t.tenant_id order by r.tenant_id limit 1)
  from t where t.tenant_id is not null
), each as materialized (
  select greatest({FEW}, %(deep)s - count(*))::int8 as depth from t where tenant_id is not null
), due as (
  select x.id, x.available_at,
    coalesce(h.held, 0) + row_number() over (partition by t.tenant_id order by x.priority desc, x.available_at) as turn
  from t left join unnest(%(tenants)s::uuid[], %(held)s::int8[]) as h(tenant_id, held) on h.tenant_id = t.tenant_id
  cross join lateral (
    (select id, priority, available_at from run where {_DUE} and tenant_id = t.tenant_id and priority = 1
       and available_at <= statement_timestamp() order by available_at limit (select depth from each))
    union all
    (select id, priority, available_at from run where {_DUE} and tenant_id = t.tenant_id and priority = 0
       and available_at <= statement_timestamp() order by available_at limit (select depth from each))
    limit (select depth from each)
  ) x
  where t.tenant_id is not null
), first as materialized (
  select id, turn, available_at from due order by turn, available_at limit %(deep)s
), k as (
  select r.id from first join run r on r.id = first.id and r.{_DUE} and r.available_at <= statement_timestamp()
  order by first.turn, first.available_at limit %(n)s for no key update of r skip locked
), c as (
  update run r set state = 'running', fence = r.fence + 1, entry = 0, seq = r.seq + 1, owner = %(engine)s, hold_until = null
  from k where r.id = k.id
""" + _TAKEN.format(kind="case when c.fence = 1 then 'run_started' else 'run_claimed' end")

# Runs whose engine let its lease run out; where a write is in flight, only once its wall deadline has passed as well.
TAKEOVER = """
with k as (
  select r.id from run r left join engine g on g.id = r.owner
  where r.owner is not null and (g.id is null or g.lease_until < statement_timestamp())
    and (r.hold_until is null or r.hold_until < statement_timestamp() or g.id is null or g.pid = 0)
  order by r.id limit %(n)s for no key update of r skip locked
), c as (
  update run r set fence = r.fence + 1, entry = 0, seq = r.seq + 1, owner = %(engine)s, hold_until = null,
      -- only what was in flight can have brought its engine down
      takeovers = r.takeovers + (exists (select 1 from call c where c.run_id = r.id and c.state = 'dispatched'))::int
  from k where r.id = k.id
""" + _TAKEN.format(kind="'run_taken_over'")

# A run whose coroutine failed here: the engine lives, so no lease will hand it on. Given back, and after three times put aside.
GIVE_BACK = """
with c as (
  update run set fence = fence + 1, seq = seq + 1, owner = null, takeovers = takeovers + 1,
      state = case when takeovers + 1 >= %(most)s then 'quarantined' else 'queued' end,
      available_at = greatest(statement_timestamp(), hold_until)
  where id = %(run)s and fence = %(fence)s and owner = %(engine)s and state = 'running'
  returning id, seq, tenant_id, state
), told as (
  insert into event(run_id, seq, tenant_id, kind, payload, at)
  select id, seq, tenant_id, 'run_parked', jsonb_build_object('v', 1, 'data', jsonb_build_object('state', state, 'reason', 'engine_fault')),
      clock_timestamp() from c
)
select state from c
"""

CALLS = """
select step, ord, state, name, tool_version_id, effect, provider_id, args, proposed, decision, approval_id, attempt, result, error_class,
    extract(epoch from statement_timestamp() - dispatched_at)::float8 as age_s
from call where run_id = %(run)s order by step, ord
"""

STEPS = "select step, role from step where run_id = %(run)s order by step"

# How long a step has been worked on, its back-offs counted in; not the time in the queue or with people, which the run's deadline
# counts or not. Who takes over begins it anew: the lease may be longer than the step.
STEP_AGE = """
with began as (
  select greatest(min(seq) filter (where (payload->>'step_id')::int = %(step)s), max(seq) filter (where kind = 'run_taken_over')) as seq
  from event where run_id = %(run)s
), spans as (
  select e.seq = began.seq or e.kind = 'run_claimed' or e.payload->'data'->>'state' = 'waiting_timer' as counts, e.at,
      lead(e.at, 1, statement_timestamp()) over (order by e.seq) as until
  from event e join began on e.seq = began.seq or (e.seq > began.seq and e.kind in ('run_claimed', 'run_parked', 'run_resumed'))
  where e.run_id = %(run)s
)
select coalesce(sum(extract(epoch from until - at)) filter (where counts), 0)::float8 as age_s from spans
"""

# A lease that is over stays over: its runs may be somebody else's already, also where nobody has taken them yet.
RENEW = """
update engine set lease_until = statement_timestamp() + make_interval(secs => %(ttl)s) where id = %(engine)s and pid <> 0
  and lease_until > statement_timestamp() returning 1
"""

REGISTER = """
insert into engine(id, host, boot_id, pid, started, lease_until)
values (%(engine)s, %(host)s, %(boot)s, %(pid)s, %(started)s, statement_timestamp() + make_interval(secs => %(ttl)s))
"""

# pid 0 says: known dead (or stopped by itself). Nothing it had in flight is still being sent, so no hold applies.
RETIRE = "update engine set pid = 0, lease_until = statement_timestamp() - interval '1 millisecond' where id = any(%(engines)s)"

PEERS = "select id, pid, started from engine where host = %(host)s and boot_id = %(boot)s and pid <> 0"

FORGET = """
delete from engine g where g.lease_until < statement_timestamp() - interval '1 hour'
  and not exists (select 1 from run r where r.owner = g.id)
"""
