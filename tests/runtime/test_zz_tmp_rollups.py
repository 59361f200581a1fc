import time
from datetime import timedelta
from django.db import connection
from django.utils import timezone
from console import metrics, rollups
from console.rollups import HOUR, hour_of
from tests.runtime.waiting import make_world

def test_speed(db):
    w = make_world()
    now = timezone.now(); h = hour_of(now)
    with connection.cursor() as c:
        c.execute("""insert into run (id, tenant_id, agent_id, release_id, deadline_at, created_at, fence, entry, seq, available_at)
          select (lpad(to_hex((extract(epoch from t)*1000)::bigint),12,'0') || substr(md5(i::text),1,20))::uuid, %s, %s, %s, t, t, 0,0,0,t
          from (select i, %s::timestamptz - interval '1 hour' * 168 * random() as t from generate_series(1, 60000) i) x""", [w.tenant.id, w.agent.pk, w.agent.live_id, h])
        c.execute("update run set state='running', owner=gen_random_uuid()")
        c.execute("update run set state='succeeded', owner=null, outcome='completed', ended_at=created_at+interval '9 s', step=4, cost_micro=1200")
        c.execute("""insert into call (run_id, step, ord, tenant_id, state, name, effect, attempt, fence, latency_ms, tokens_in, tokens_out, cost_micro)
          select r.id, s, o, r.tenant_id, 'dispatched', 'tool'||((o*s) % 7)::text, 'read', 1, 1, 120, 10, 10, 5 from run r, generate_series(1,2) s, generate_series(0,1) o""")
        c.execute("update call set state = 'done'")
        c.execute("""insert into event (run_id, seq, tenant_id, kind, payload, at) select r.id, s, r.tenant_id, 'plan_decided', '{}', r.created_at from run r, generate_series(1,8) s""")
        c.execute("analyze run"); c.execute("analyze call"); c.execute("analyze event")
    def t(name, f, n=3):
        best = min((lambda a: (f(), time.perf_counter()-a)[1])(time.perf_counter()) for _ in range(n))
        print(f"{name}: {best*1000:.1f} ms")
    t("measure hour of 360 runs", lambda: rollups.measure(h-5*HOUR, h-4*HOUR))
    t("fold hour", lambda: rollups.fold(h-5*HOUR))
    t("measure 10h 3600 runs", lambda: rollups.measure(h-15*HOUR, h-5*HOUR))
    t("measure old hour", lambda: rollups.measure(h-150*HOUR, h-149*HOUR))
    with connection.cursor() as c:
        c.execute("show jit"); print("(jit", c.fetchone())
        c.execute("set local jit = off")
    t("nojit measure hour of 360 runs", lambda: rollups.measure(h-5*HOUR, h-4*HOUR))
    t("nojit measure now", lambda: rollups.measure(h, h+HOUR))
    t("nojit measure 10h", lambda: rollups.measure(h-15*HOUR, h-5*HOUR))
    from console.rollup_sql import MEASURE
    from tenants.ids import first_at
    with connection.cursor() as c:
        c.execute("explain (analyze, buffers off, costs off) "+MEASURE, {"since": h-5*HOUR, "until": h-4*HOUR, "tenant": None, "first": first_at(h-5*HOUR), "last": first_at(h+48*HOUR), "terminal": ["succeeded"], "limited": [], "fell_back": [], "telling": ["x"]})
        for r in c.fetchall():
            if "actual time" not in r[0] or "ms" in r[0] or float(r[0].split("actual time=")[1].split("..")[1].split(" ")[0]) > 8: print("(", r[0][:150], ")")
