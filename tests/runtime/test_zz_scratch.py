import time
from asgiref.sync import sync_to_async
import psycopg
async def test_big(world, urls):
    from console.doctor import _values, _offenders, examine
    from console.doctor_rules import RULES
    from django.db import connection
    await world.agent()
    one = await world.submit("x")
    with psycopg.connect(urls.owner) as c:
        c.execute("alter table run disable trigger user; alter table call disable trigger user; alter table event disable trigger user")
        c.execute("""insert into run(id, tenant_id, agent_id, release_id, state, seq, deadline_at, starter_id, outcome, ended_at, answer_step, step)
          select gen_random_uuid(), tenant_id, agent_id, release_id, 'succeeded', 12, deadline_at, starter_id, 'completed', now(), 1, 1 from run, generate_series(1, 100000)""")
        c.execute("""insert into event(run_id, seq, tenant_id, kind, payload) select r.id, n, tenant_id, case n when 1 then 'run_accepted' when 12 then 'run_completed' else 'plan_decided' end, '{}' from run r, generate_series(1, 12) n where outcome is not null""")
        c.execute("""insert into call(run_id, step, ord, tenant_id, state, name, effect, fence, result) select r.id, 1, n, tenant_id, 'done', 'x', 'read', 0, '{}' from run r, generate_series(0, 2) n where outcome is not null""")
        c.commit()
        c.autocommit = True
        c.execute("analyze run; "); c.execute("analyze call"); c.execute("analyze event")
    def look():
        b = time.perf_counter(); f = examine(connection); print("\nall", round(time.perf_counter() - b, 2), [(x.name, len(x.ids)) for x in f])
        from django.db import transaction
        with transaction.atomic():
            connection.cursor().execute("set local enable_seqscan = off")
            v = _values(connection); print(len(v["runs"]))
            for r in RULES:
                b = time.perf_counter(); _offenders(connection, r, v); d = time.perf_counter() - b
                if d > .1: print(r.name, round(d, 2))
    await sync_to_async(look)()
