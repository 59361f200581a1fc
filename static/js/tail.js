/* A log that follows its end until somebody reads above it. Markup contract:
   data-live-tail + <template>   on a live region (live.js): a row for each message; [data-f=seq|at|kind|text] get textContent
   data-live-start (ISO)         makes "at" an offset
   [data-live-new=ID]            says how many came meanwhile; click follows again
   Wheel up, PageUp, Home, ArrowUp, scrolling up and selecting text pause it; End, the pill, scrolling to the end and sb:follow resume. */
(() => {
  "use strict";
  const doc = document, MOST = 1000, NEAR = 24;
  const all = (q, root = doc) => [...root.querySelectorAll(q)];
  const logs = new WeakMap();
  const log = el => logs.get(el) ?? (logs.set(el, { held: false, behind: 0, kept: [], top: el.scrollTop }), logs.get(el));
  const logOf = node => (node?.nodeType === 1 ? node : node?.parentElement)?.closest("[data-live-tail]");
  const atEnd = el => el.scrollHeight - el.scrollTop - el.clientHeight <= NEAR;

  function text(m, name, start) {
    const d = m.d ?? {};
    if (name === "seq") return `#${m.seq}`;
    if (name === "kind") return d.event ?? m.k;
    if (name === "text") return d.text ?? [d.tool ?? d.model, d.result, d.error_type, d.latency_ms != null && `${d.latency_ms} ms`].filter(Boolean).join(" · ");
    if (name !== "at" || !start || !d.at) return d[name] ?? "";
    const s = Math.max(0, (Date.parse(d.at) - Date.parse(start)) / 1000);
    return `+${String(Math.floor(s / 60)).padStart(2, "0")}:${(s % 60).toFixed(1).padStart(4, "0")}`;
  }
  function add(el, messages) {
    const template = el.querySelector("template"), box = doc.createDocumentFragment();
    for (const m of messages) {
      const row = template.content.cloneNode(true);
      for (const f of all("[data-f]", row)) f.textContent = text(m, f.dataset.f, el.dataset.liveStart);
      box.append(row);
    }
    el.append(box);
  }
  function pill(el) {
    const { behind } = log(el), button = doc.querySelector(`[data-live-new="${CSS.escape(el.id)}"]`);
    if (button) { button.hidden = !behind; button.textContent = `Paused, ${behind} new. Follow` }
  }
  function follow(el) {
    const r = log(el);
    add(el, r.kept.splice(0).slice(-MOST));
    Object.assign(r, { held: false, behind: 0 });
    const template = el.querySelector("template");
    while (el.childElementCount > MOST) el.children[el.children[0] === template ? 1 : 0].remove();
    el.scrollTop = r.top = el.scrollHeight;
    pill(el);
  }
  const hold = el => { if (el && el.scrollHeight > el.clientHeight) log(el).held = true };

  doc.addEventListener("sb:rows", e => {
    const el = e.target, r = log(el);
    if (!r.held && !atEnd(el)) r.held = true;
    if (r.held && el.childElementCount > MOST) r.kept.push(...e.detail);
    else add(el, e.detail);
    if (!r.held) return follow(el);
    r.behind += e.detail.length;
    pill(el);
  });
  doc.addEventListener("wheel", e => { if (e.deltaY < 0) hold(logOf(e.target)) }, { passive: true });
  doc.addEventListener("keydown", e => {
    const el = logOf(e.target);
    if (!el || e.ctrlKey || e.metaKey || e.altKey) return;
    if (["PageUp", "Home", "ArrowUp"].includes(e.key)) hold(el);
    if (e.key === "End") { e.preventDefault(); follow(el) }
  });
  doc.addEventListener("selectionchange", () => { const selection = getSelection(); if (selection.toString()) hold(logOf(selection.anchorNode)) });
  doc.addEventListener("scroll", e => {
    const el = e.target;
    if (!el.matches?.("[data-live-tail]")) return;
    const r = log(el), down = el.scrollTop > r.top, up = el.scrollTop < r.top;
    r.top = el.scrollTop;
    if (down && r.held && atEnd(el) && !getSelection().toString()) follow(el);
    else if (up && !atEnd(el)) r.held = true;
  }, true);
  doc.addEventListener("click", e => {
    const el = doc.getElementById(e.target.closest("[data-live-new]")?.dataset.liveNew ?? "");
    if (el && "liveTail" in el.dataset) { getSelection().empty(); follow(el) }
  });
  doc.addEventListener("sb:follow", () => all("[data-live-tail]").forEach(follow));
})();
