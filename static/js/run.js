/* The tree of a run's page, its inspector and permalinks, and the list of runs. Markup contract:
   #tree [role=treeitem]           data-at (key), data-call (what the inspector shows), data-in (parent's key), data-bad (a failure)
   #timeline, #inspector           live regions; their data-live-fragment carries what the reader chose: rows, sel, tab
   [data-tree=expand|collapse]     buttons · [data-select=KEY] a link to another call · #tail .ev with #seq-N
   Keys: arrows, Home, End, Enter in the tree; the single ones are in keys.js, which says sb:step, sb:tree and sb:failure.
   #inspector-sheet                up to 860 px a touched row shows the inspector in this dialog; it goes back when that closes.
   #runs-list[data-first] takes new runs in by itself while the reader is at the top and nowhere in the list. */
(() => {
  "use strict";
  const doc = document, byId = id => doc.getElementById(id);
  const all = (q, from = doc) => [...from.querySelectorAll(q)];
  const rows = () => all("#tree [role=treeitem]"), shown = () => rows().filter(row => !row.hidden);
  const rowOf = key => doc.querySelector(`#tree [data-at="${CSS.escape(key)}"]`);
  const opened = new Map();  // key -> whether the reader opened it

  /* the tree ------------------------------------------------------------------------------------------------------- */
  function layout() {
    const open = new Map();
    for (const row of rows()) {
      const key = row.dataset.at;
      if (opened.has(key) && row.ariaExpanded) row.ariaExpanded = String(opened.get(key));
      row.hidden = row.dataset.in !== undefined && !open.get(row.dataset.in);
      open.set(key, !row.hidden && row.ariaExpanded === "true");
    }
    rove(rows().find(row => row === doc.activeElement) ?? shown().find(row => row.ariaSelected === "true") ?? shown()[0]);
  }
  function rove(to) { for (const row of rows()) row.tabIndex = row === to ? 0 : -1 }
  function focus(row) { if (row) { rove(row); row.focus() } }
  function setOpen(row, open) { if (row?.ariaExpanded) { opened.set(row.dataset.at, open); layout() } }
  function setAll(open) { for (const row of rows()) if (row.ariaExpanded) opened.set(row.dataset.at, open); layout() }
  function reveal(row) {
    for (let up = row && rowOf(row.dataset.in ?? ""); up; up = rowOf(up.dataset.in ?? "")) opened.set(up.dataset.at, true);
    layout();
  }
  const selected = () => rows().find(row => row.ariaSelected === "true");
  function aim(region, changes) {
    const url = new URL(region.dataset.liveFragment, location.href);
    for (const [name, value] of Object.entries(changes)) url.searchParams.set(name, value);
    region.dataset.liveFragment = url.pathname + url.search;
    return region.dataset.liveFragment;
  }
  let later, wanted;
  function choose(row, { tab, wait = 0 } = {}) {
    if (!row?.dataset.call) return;
    for (const one of rows()) one.ariaSelected = String(one === row);
    aim(byId("timeline"), { sel: row.dataset.call });
    clearTimeout(later);
    later = setTimeout(() => show(row.dataset.call, tab ?? byId("inspector").dataset.tab ?? "summary", row.id), wait);
  }
  async function show(key, tab, anchor) {
    aim(byId("timeline"), { sel: key });
    const box = byId("inspector"), url = aim(box, { sel: key, tab });
    wanted = url;
    history.replaceState(null, "", `${location.pathname}?${new URLSearchParams({ sel: key, tab })}#${anchor}`);
    await htmx.ajax("GET", url, { source: box, target: box, swap: "outerMorph" });
    if (wanted !== url && byId("inspector")) aim(byId("inspector"), Object.fromEntries(new URL(wanted, location.href).searchParams));
  }
  function step(row, by) { const list = shown(); focus(list[Math.min(list.length - 1, Math.max(0, list.indexOf(row) + by))]); choose(doc.activeElement, { wait: 200 }) }
  function inward(row) { if (row.ariaExpanded === "false") setOpen(row, true); else if (row.ariaExpanded === "true") step(row, 1) }
  function outward(row) {
    if (row.ariaExpanded === "true") return setOpen(row, false);
    const up = rowOf(row.dataset.in ?? "");
    if (up) { focus(up); choose(up, { wait: 200 }) }
  }
  function treeKey(e, row) {
    const list = shown();
    const act = {
      ArrowDown: () => step(row, 1), ArrowUp: () => step(row, -1), ArrowRight: () => inward(row), ArrowLeft: () => outward(row),
      Home: () => focus(list[0]), End: () => focus(list.at(-1)), Enter: () => row.dataset.at ? (choose(row), lift()) : row.click(), " ": () => { choose(row); lift() },
    }[e.key];
    if (act) { e.preventDefault(); act() }
  }

  /* failures, permalinks, the tail ---------------------------------------------------------------------------------- */
  function failure(by) {
    const bad = rows().filter(row => "bad" in row.dataset && row.ariaLevel !== "1"), list = rows();
    const at = list.indexOf(selected());
    const next = by > 0 ? bad.find(row => list.indexOf(row) > at) : bad.findLast(row => list.indexOf(row) < at);
    if (next) { reveal(next); focus(next); choose(next) }
  }
  function follow() { const log = byId("tail"); if (log) log.scrollTop = log.scrollHeight }

  /* on a phone the inspector is a sheet over the timeline ------------------------------------------------------------ */
  const sheet = byId("inspector-sheet"), place = sheet && doc.createComment("");
  function lift() {
    if (!sheet || sheet.open || !matchMedia("(max-width: 860px)").matches) return !!sheet?.open;
    const box = byId("inspector");
    box.before(place);
    sheet.append(box);
    sheet.showModal();
    return true;
  }
  function toHash() {
    const name = location.hash.slice(1), target = name && byId(name), query = new URLSearchParams(location.search);
    const seq = /^seq-(\d+)$/.exec(name), at = /^(?:step|call)-([\d.]+)$/.exec(name);
    if (seq && byId("tail")) {
      if (!target) { if (+seq[1] < lastSeq() && query.get("before") !== `${+seq[1] + 1}`) location.replace(`?before=${+seq[1] + 1}${location.hash}`); return }
      for (const line of all(".ev.hit")) line.classList.remove("hit");
      target.classList.add("hit");
      byId("tail").scrollTop = target.offsetTop - byId("tail").offsetTop - 60;
    } else if (at && byId("tree")) {
      if (!target) { if (query.get("sel") !== at[1]) location.replace(`?sel=${at[1]}${location.hash}`); return }
      reveal(target);
      if (target !== selected()) choose(target);
      target.scrollIntoView({ block: "nearest" });
    }
  }
  const lastSeq = () => +(byId("tail").dataset.liveSeq ?? 0);
  const bad = /_failed$|_unknown$|_violated$|_exceeded$/, waits = /^(approval_requested|run_parked|retry_scheduled|call_held)$/;
  function nameLine(line) {
    const link = line.querySelector?.(".q");
    if (!link || line.id) return;
    const kind = line.querySelector("[data-f=kind]")?.textContent ?? "", seq = link.textContent.slice(1);
    line.id = `seq-${seq}`; link.href = `#seq-${seq}`;
    if (bad.test(kind) || waits.test(kind)) line.querySelector(".tx").classList.add(bad.test(kind) ? "t-fail" : "t-wait");
  }

  /* the list of runs ------------------------------------------------------------------------------------------------ */
  function takeNew() {
    const list = byId("runs-list"), link = byId("runs-new");
    if (link && "first" in list.dataset && scrollY <= 24 && !list.matches(":hover, :focus-within, :has(input:checked)") && !getSelection().toString()) link.click();
  }

  /* listeners ------------------------------------------------------------------------------------------------------- */
  const plainClick = e => e.button === 0 && !e.ctrlKey && !e.metaKey && !e.shiftKey && !e.altKey;
  doc.addEventListener("click", e => {
    const button = e.target.closest("[data-tree]");
    if (button) return setAll(button.dataset.tree === "expand");
    if (!plainClick(e)) return;
    const row = e.target.closest("#tree [role=treeitem]"), tab = e.target.closest("#inspector [data-tab][href]"), other = e.target.closest("[data-select]");
    if (row?.dataset.at) {
      e.preventDefault(); rove(row); row.focus({ preventScroll: true });
      if (e.target.closest(".tw") && row.ariaExpanded) return setOpen(row, row.ariaExpanded !== "true");
      choose(row, { tab: row.dataset.at.endsWith(".policy") ? "policy" : undefined });
      if (!lift() && innerWidth <= 1180) byId("inspector").scrollIntoView({ block: "start" });
    } else if (tab) {
      e.preventDefault();
      const box = byId("inspector");
      show(box.dataset.at, tab.dataset.tab, new URL(tab.href).hash.slice(1));
    } else if (other && rowOf(other.dataset.select)) {
      e.preventDefault();
      const to = rowOf(other.dataset.select);
      reveal(to); choose(to, { tab: "summary" });
    }
  });
  doc.addEventListener("sb:tree", e => setAll(e.detail));
  doc.addEventListener("sb:failure", e => failure(e.detail));
  doc.addEventListener("sb:step", e => { const row = doc.activeElement.closest("#tree [role=treeitem]"); if (row) step(row, e.detail); else focus(rows().find(one => one.tabIndex === 0)) });
  doc.addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented || doc.querySelector("dialog[open]")) return;
    const row = e.target.closest?.("#tree [role=treeitem]");
    if (row) treeKey(e, row);
  });
  doc.addEventListener("htmx:after:swap", () => {
    takeNew();
    const title = byId("run-head")?.dataset.title;
    if (title && doc.title !== title) doc.title = title;
    if (!byId("tree")) return;
    if (atEnd) doc.querySelector(".lanes").scrollTop = 1e9;
    const count = rows().filter(row => row.dataset.at).length, first = byId("earlier")?.dataset.first ?? 0;
    if (count > 200 || first) aim(byId("timeline"), { first, rows: count });
    layout();
  });
  let atEnd = true;  // of the tree's box, which has a height of its own while the run is live
  doc.addEventListener("scroll", e => { if (e.target.matches?.(".lanes")) atEnd = e.target.scrollHeight - e.target.scrollTop - e.target.clientHeight <= 24 }, true);
  addEventListener("hashchange", toHash);
  addEventListener("scroll", takeNew, { passive: true });
  const log = byId("tail");
  if (log) {
    new MutationObserver(changes => { for (const change of changes) change.addedNodes.forEach(nameLine) }).observe(log, { childList: true });
    follow();
  }
  if (byId("tree")) layout();
  sheet?.addEventListener("close", () => { place.replaceWith(byId("inspector")); history.replaceState(null, "", location.pathname + location.hash) });
  if (new URLSearchParams(location.search).has("sel")) lift();
  toHash();
})();
