/* Live data over one WebSocket. Markup contract:
   <body data-live="/ws">                 the socket; without it this file does nothing
   data-live-topic="run:agt_1 approvals"  a region and its topics; give it an id
   data-live-seq="214"                    seq of the first topic when rendered; replay starts after it
   data-live-v="5"                        version shown; a message with a lower v is dropped
   data-live-fragment="/runs/agt_1/head"  fetched by htmx (outerMorph) on messages; answers this element again
   data-live-kinds="run approval"         only these k count for the fragment
   data-live-every="1000"                 ms between fetches, at least 250 (charts 10000)
   data-live-hold="runs changed"          a list: waits behind [data-live-new] when scrolled, hovered or in focus
   data-live-tail                         a log: it hears sb:rows with the messages (tail.js)
   [data-live-new=ID]                     button: what region ID holds back; click shows it
   [data-live-last=TOPIC]                 text = last seq
   [data-live-count=NAME]                 text = d.counts[NAME]; <title data-live-title=NAME> gets "(5) " too
   [data-live-state]                      the Live button; pauses rendering, not receiving; once signed out it leads to the sign-in page
   A region with an open dialog, popover or form field in focus waits, one in dialog[data-live-in] does not; [hx-morph-skip] stays as
   it is. Without a socket for 5 s every region is fetched, then every 15 s.
   Event sb:decided (header HX-Trigger: {"sb:decided": {"topic": "approvals"}}) refreshes other tabs too. */
(() => {
  const doc = document, url = doc.body.dataset.live;
  if (!url) return;
  const { zone, clock: hours } = doc.documentElement.dataset, clock = { timeZone: zone === "local" ? undefined : zone || "UTC", hourCycle: hours === "12" ? "h12" : "h23" };
  const all = (q, root = doc) => [...root.querySelectorAll(q)];
  const since = {}, versions = {}, regions = new WeakMap();
  let socket, asked = "", tries = 0, paused = false, waiting = 0, fresh = Date.now(), lostAt = fresh, frame = 0, unsaid = 0, heard = fresh, pinged = 0, polled = 0, signIn = "";
  const topicsOf = el => el.dataset.liveTopic.split(" ").filter(Boolean);
  const region = el => regions.get(el) ?? (regions.set(el, { dirty: 0, ids: new Set(), rows: [], next: 0 }), regions.get(el));
  const newFor = el => el.id && doc.querySelector(`[data-live-new="${CSS.escape(el.id)}"]`);

  function subscribe(force) {
    const topics = [...new Set(all("[data-live-topic]").flatMap(topicsOf))].sort();
    for (const el of all("[data-live-topic][data-live-seq]")) since[topicsOf(el)[0]] ??= +el.dataset.liveSeq;
    if (socket?.readyState !== 1 || (!force && asked === topics.join())) return;
    asked = topics.join();
    socket.send(JSON.stringify({ op: "sub", topics, since: Object.fromEntries(topics.filter(t => t in since).map(t => [t, since[t]])) }));
  }
  function connect() {
    clearTimeout(connect.timer);
    socket = new WebSocket(new URL(url, location.href.replace(/^http/, "ws")));
    socket.onopen = () => { tries = lostAt = pinged = polled = 0; signIn = ""; heard = Date.now(); subscribe(true); state() };
    socket.onmessage = e => { heard = Date.now(); receive(JSON.parse(e.data)) };
    socket.onclose = lost;
  }
  function lost() {
    lostAt ||= fresh = Date.now();
    clearTimeout(connect.timer);
    connect.timer = setTimeout(connect, Math.min(30000, 500 * 2 ** tries++ * (1 + Math.random())));
    state();
  }
  function drop() { socket.onclose = socket.onmessage = null; socket.close(); lost() } // a dead line would tell us late
  function receive(m) {
    if (m.op === "reset") {
      const t = m.topic ?? m.t;
      if (t) { if (m.seq == null) delete since[t]; else since[t] = m.seq } else for (const k in since) delete since[k];
      return touch(el => !t || topicsOf(el).includes(t));
    }
    if (!m.t) return;
    if (m.seq != null) { if (m.seq <= (since[m.t] ?? -1)) return; since[m.t] = m.seq }
    for (const [name, n] of Object.entries(m.d?.counts ?? {})) count(name, n);
    for (const el of all(`[data-live-last="${CSS.escape(m.t)}"]`)) el.textContent = m.seq;
    const key = `${m.t} ${m.d?.id ?? ""}`, old = m.v != null && m.v < (versions[key] ?? 0);
    if (m.v != null && !old) versions[key] = m.v;
    let used = false;
    for (const el of all("[data-live-topic]").filter(el => topicsOf(el).includes(m.t))) {
      const r = region(el), kinds = el.dataset.liveKinds;
      if ("liveTail" in el.dataset) { r.rows.push(m); used = true }
      else if (el.dataset.liveFragment && !old && !(m.v < +el.dataset.liveV) && (!kinds || kinds.split(" ").includes(m.k))) { r.dirty++; r.ids.add(m.d?.id ?? m.seq); used = true }
    }
    if (!used) return;
    waiting++; unsaid++;
    if (paused) state();
    else schedule();
  }
  function count(name, n) {
    for (const el of all(`[data-live-count="${CSS.escape(name)}"]`)) { el.textContent = n; const box = el.closest(".n, .dot"); if (box) box.hidden = !n }
    if (doc.querySelector("title").dataset.liveTitle === name) doc.title = doc.title.replace(/^(\(\d+\) )?/, n ? `(${n}) ` : "");
  }
  function touch(which) { for (const el of all("[data-live-topic][data-live-fragment]")) if (which(el)) region(el).dirty++; schedule() }
  function schedule() { if (!frame && !doc.hidden) frame = requestAnimationFrame(() => { frame = 0; render() }) }
  const inField = el => el.contains(doc.activeElement) && doc.activeElement.matches("input, textarea, select, [contenteditable]");
  const isOpen = el => el.querySelector("dialog[open], :popover-open, details.menu[open]") || el.closest("dialog[open]:not([data-live-in])");
  function held(el) {
    if (inField(el) || isOpen(el)) return true;
    if (!("liveHold" in el.dataset)) return false;
    return el.matches(":hover, :focus-within") || el.scrollTop > 24 || el.getBoundingClientRect().top < 0 || el.querySelector("input:checked");
  }
  function render() {
    if (paused || doc.hidden) return;
    const now = Date.now();
    let later = Infinity;
    for (const el of all("[data-live-topic]")) {
      const r = region(el);
      if (!r.dirty && !r.rows.length) continue;
      if (r.busy || now < r.next) { later = Math.min(later, Math.max(50, r.next - now)); continue }
      if (r.rows.length) el.dispatchEvent(new CustomEvent("sb:rows", { bubbles: true, detail: r.rows.splice(0) }));
      else if (held(el)) { hold(el, r, true); later = Math.min(later, 1000); continue }
      else refresh(el, r);
      r.next = now + ("liveTail" in el.dataset ? 250 : Math.max(250, el.dataset.liveEvery ?? 500));
    }
    waiting = 0; state();
    if (later < Infinity) { clearTimeout(render.timer); render.timer = setTimeout(schedule, later) }
  }
  function hold(el, r, on) {
    const b = newFor(el);
    if (!b) return;
    (b.closest(".newrows") ?? b).hidden = !on;
    if (on) b.textContent = r.ids.size ? `${r.ids.size} ${el.dataset.liveHold || "changed"}` : "Show changes";
  }
  async function refresh(el, r) {
    const n = r.dirty;
    r.dirty = 0; r.ids.clear(); r.busy = true; hold(el, r);
    try { await htmx.ajax("GET", el.dataset.liveFragment, { source: el, target: el, swap: "outerMorph", live: true }) }
    catch { r.dirty += n }
    r.busy = false;
    if (r.dirty) schedule();
  }
  function state() {
    const lost = lostAt && Date.now() - lostAt > 5000, why = navigator.onLine ? "Reconnecting" : "Offline";
    const [name, words] = paused ? ["paused", `Paused, ${waiting} new`] : signIn ? ["stale", "Signed out"] : lost ? ["stale", `${why}, data is from ${new Date(fresh).toLocaleTimeString("en-GB", clock)}`] : lostAt ? ["reconnecting", why] : ["live", "Live"];
    for (const b of all("[data-live-state]")) {
      b.dataset.state = name; b.ariaPressed = String(!paused);
      const label = b.querySelector("span") ?? b;
      if (label.textContent !== words) label.textContent = words;
    }
  }
  doc.addEventListener("click", e => {
    if (e.target.closest("[data-live-state]")) { if (signIn && !paused) return location.assign(signIn); paused = !paused; if (!paused) { waiting = 0; schedule() } state() }
    const b = e.target.closest("[data-live-new]"), el = b && doc.getElementById(b.dataset.liveNew);
    if (el && !("liveTail" in el.dataset)) refresh(el, region(el));
  });
  // No error or sign-in page may be morphed into a region.
  doc.addEventListener("htmx:before:response", e => {
    const { live, target, hx, response: { status, raw } } = e.detail.ctx;
    if (!live || (status < 400 && !raw.redirected && !hx.redirect)) return;
    e.preventDefault();
    if (hx.redirect && !signIn) {
      signIn = hx.redirect; state();
      doc.dispatchEvent(new CustomEvent("sb:toast", { detail: { text: "You are signed out. This page shows what it showed last; sign in by the button at the top.", fail: true } }));
    }
    if (status > 499) { const r = region(target); r.dirty ||= 1; r.next = Date.now() + 5000 }
  });
  doc.addEventListener("htmx:after:swap", e => { if (lostAt && e.detail.ctx?.live) fresh = Date.now(); subscribe() });
  doc.addEventListener("visibilitychange", () => { if (doc.hidden) return; if (socket.readyState > 1) connect(); schedule() });
  const channel = "BroadcastChannel" in window && new BroadcastChannel("signalbox");
  const decided = t => touch(el => !t || topicsOf(el).includes(t));
  doc.addEventListener("sb:decided", e => { channel && channel.postMessage(e.detail?.topic ?? ""); decided(e.detail?.topic) });
  if (channel) channel.onmessage = e => decided(e.data);
  addEventListener("offline", drop);
  addEventListener("online", () => { if (lostAt) connect() });
  setInterval(() => {
    const now = Date.now();
    state();
    if (lostAt && now - lostAt > 5000 && now - polled > 14000 && !doc.hidden) { polled = now; touch(() => true) }
    if (!lostAt && pinged > heard && now - pinged > 9000) drop();
    else if (!lostAt && now - heard > 20000 && pinged <= heard) { pinged = now; socket.send('{"op":"ping"}') }
    const say = doc.getElementById("announce");
    if (!say || paused || doc.hidden) return;
    const words = [say.dataset.next, unsaid && `${unsaid} new event${unsaid > 1 ? "s" : ""}`].filter(Boolean).join(" ");
    if (words) { say.textContent = words; say.dataset.next = ""; unsaid = 0 }
  }, 5000);
  connect();
})();
