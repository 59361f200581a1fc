"""The statement that counts the runs of some hours, from the runs, their calls, events and approvals.

It answers one number a row: (hour, tenant, agent, release, kind, name, field, key, number). Kind and name are empty for figures of
runs; a key is empty for plain numbers, else a bucket, a state or a class. A run belongs to the hour of its `created_at`. Ids sort by
time and bound the search: from an hour before the period (the clock that makes ids may be late) to two days after it (or ahead).
"""

from .histograms import BUCKET_SQL

RUN_KEY = "p.hour, p.tenant_id, p.agent_id, p.release_id"
CALL_KEY = "c.hour, c.tenant_id, c.agent_id, c.release_id, c.kind, c.name"
COUNTED = "c.attempt > 0 and c.state = any(array['done', 'failed_not_applied', 'unknown'])"  # sent, and settled
WRONG = f"{COUNTED} and (c.state = 'unknown' or c.error_class <> 'duplicate_request')"

MEASURE = f"""
with picked as materialized (
  select r.id, r.tenant_id, date_trunc('hour', r.created_at, 'UTC') as hour, r.agent_id, r.release_id, r.state, r.outcome, r.step,
    r.writes, r.cost_micro, r.unpriced, r.state = any(%(terminal)s) as ended,
    greatest(extract(epoch from r.ended_at - r.created_at) * 1000, 0) as ms
  from run r
  where r.id >= %(first)s and r.id < %(last)s and r.created_at >= %(since)s and r.created_at < %(until)s
    and (%(tenant)s::uuid is null or r.tenant_id = %(tenant)s) and r.mode <> all(%(rehearsals)s)
), tales as materialized (
  select {RUN_KEY}, p.id, p.ended, e.kind, case when e.kind = 'retry_scheduled' then e.payload end as payload
  from picked p join event e on e.run_id = p.id where e.kind = any(%(telling)s)
), sent as materialized (
  select {RUN_KEY}, case when c.ord = 0 then 'model' else 'tool' end as kind, c.name, c.ord, c.state, c.attempt, c.latency_ms,
    c.error_class, c.tokens_in, c.tokens_out, c.cost_micro, c.effect <> 'read' as changes, {COUNTED} as counted, {WRONG} as wrong,
    c.ord > 0 and c.state = 'blocked' and c.decision->>'decision' = 'deny' as denied
  from picked p join call c on c.run_id = p.id
), told as (
  select e.id, bool_or(e.kind = any(%(fell_back)s)) as fell_back, bool_or(e.kind = 'policy_violated') as violated
  from tales e where e.ended group by 1
), asked as (
  select p.id, count(*) as decided, count(*) filter (where a.state = 'rejected') as rejected
  from picked p join approvals_approval a on a.run_id = p.id
  where a.grant_id is null and a.state = any(array['approved', 'rejected', 'consumed']) group by 1
), runs as (
  select {RUN_KEY}, count(*) as started, count(*) filter (where p.ended) as ended,
    count(*) filter (where p.ended and p.outcome = any(%(limited)s)) as budget_exceeded,
    count(*) filter (where told.fell_back) as fell_back, count(*) filter (where told.violated) as violated,
    sum(asked.rejected) as rejected, sum(asked.decided) as decided, sum(p.writes) as writes,
    sum(p.cost_micro) filter (where p.ended) as cost_micro, sum(p.cost_micro) as spent_micro,
    sum(p.step) filter (where p.ended) as steps_total, sum(round(p.ms)) filter (where p.ended) as duration_total_ms,
    count(*) filter (where p.unpriced) as unpriced
  from picked p left join told using (id) left join asked using (id) group by 1, 2, 3, 4
), calls as (
  select {CALL_KEY}, count(*) filter (where c.counted) as calls, count(*) filter (where c.wrong) as errors,
    count(*) filter (where c.counted and c.state = 'unknown') as unknown,
    count(*) filter (where c.counted and c.attempt > 1) as retried, sum(c.attempt) filter (where c.counted) as sends,
    count(*) filter (where c.denied) as denied,
    count(*) filter (where c.ord > 0 and c.counted and c.state = 'done' and c.changes) as applied,
    sum(greatest(c.latency_ms, 0)) filter (where c.counted) as latency_total_ms,
    sum(c.tokens_in) as tokens_in, sum(c.tokens_out) as tokens_out, sum(c.cost_micro) as cost_micro
  from sent c group by 1, 2, 3, 4, 5, 6
)
select {RUN_KEY}, '' as kind, '' as name, x.field, '' as key, coalesce(x.number, 0)::bigint from runs p, lateral (values
  ('started', p.started), ('ended', p.ended), ('budget_exceeded', p.budget_exceeded), ('fell_back', p.fell_back),
  ('violated', p.violated), ('rejected', p.rejected), ('decided', p.decided), ('writes', p.writes), ('cost_micro', p.cost_micro),
  ('spent_micro', p.spent_micro), ('steps_total', p.steps_total), ('duration_total_ms', p.duration_total_ms), ('unpriced', p.unpriced)
) as x (field, number)
union all
select {RUN_KEY}, '', '', x.field, x.key, count(*) from picked p, lateral (values
  ('states', p.state), ('outcomes', case when p.ended then coalesce(p.outcome, p.state) end),
  ('steps', (case when p.ended then {BUCKET_SQL.format("p.step")} end)::text),
  ('duration_ms', (case when p.ended then {BUCKET_SQL.format("p.ms")} end)::text),
  ('cost', (case when p.ended then {BUCKET_SQL.format("p.cost_micro")} end)::text)
) as x (field, key) where x.key is not null group by 1, 2, 3, 4, 7, 8
union all
select {RUN_KEY}, p.kind, p.name, x.field, '', coalesce(x.number, 0)::bigint from calls p, lateral (values
  ('calls', p.calls), ('errors', p.errors), ('unknown', p.unknown), ('retried', p.retried), ('sends', p.sends), ('denied', p.denied),
  ('applied', p.applied), ('latency_total_ms', p.latency_total_ms), ('tokens_in', p.tokens_in), ('tokens_out', p.tokens_out),
  ('cost_micro', p.cost_micro)
) as x (field, number)
union all
select {CALL_KEY}, x.field, x.key, count(*) from sent c, lateral (values
  ('classes', case when c.wrong then coalesce(c.error_class, 'unknown') end),
  ('latency_ms', (case when c.counted then {BUCKET_SQL.format("c.latency_ms")} end)::text)
) as x (field, key) where x.key is not null group by 1, 2, 3, 4, 5, 6, 7, 8
union all
select e.hour, e.tenant_id, e.agent_id, e.release_id, case when e.payload ? 'tool' then 'tool' else 'model' end,
  left(coalesce(e.payload->>'tool', e.payload->>'model', ''), 128), 'retry_classes',
  left(coalesce(e.payload->>'error_type', 'unknown'), 64), count(*)
from tales e where e.kind = 'retry_scheduled' group by 1, 2, 3, 4, 5, 6, 7, 8
"""
# Hours of the runs that anything happened to since then.
TOUCHED = """
select distinct date_trunc('hour', r.created_at, 'UTC') from run r
where r.id in (select distinct e.run_id from event e where e.at >= %(since)s)
"""
# Hours that nobody counted yet, the newest first. An hour without runs is counted, too: then it is known to be empty. The least id
# is not exactly the oldest run: clocks differ.
UNCOUNTED = """
with oldest as (
  select min(first.created_at) as at from (select r.created_at from run r order by r.id limit 100) first
)
select h from oldest, generate_series(greatest(date_trunc('hour', oldest.at, 'UTC'), %(oldest)s), %(now)s, interval '1 hour') h
where oldest.at is not null and not exists (select from console_foldedhour f where f.hour = h) order by h desc limit %(limit)s
"""
