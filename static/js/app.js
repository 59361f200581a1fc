/* The console's own behaviour on top of plain pages. Markup contract:
   data-theme-toggle · data-copy="text" · data-open="dialog-id" · data-close · data-typed="name" (confirm by typing)
   form[data-once]: a second submit is ignored · <time data-when="relative|absolute|date" datetime> · data-countdown="ISO",
   inside form[data-locks] the buttons lock at zero · data-key="a": pressed key clicks it · data-keys: a list whose
   [data-row] links J and K walk · [data-filter]: the field that "/" focuses · .toast by document event sb:toast {text, fail}. */
(() => {
  "use strict";
  const doc = document, root = doc.documentElement;
  const all = (q, from = doc) => [...from.querySelectorAll(q)];
  const say = text => { doc.getElementById("announce").textContent = text };
  const icon = name => {
    const svg = doc.createElementNS("http://www.w3.org/2000/svg", "svg"), use = doc.createElementNS("http://www.w3.org/2000/svg", "use");
    svg.setAttribute("class", "i s"); svg.setAttribute("aria-hidden", "true");
    use.setAttribute("href", `${root.dataset.sprite}#i-${name}`);
    svg.append(use);
    return svg;
  };
  const make = (tag, css, text = "") => { const el = doc.createElement(tag); el.className = css; el.textContent = text; return el };

  /* theme: the key is the Django admin's, so that one choice serves both */
  function toggleTheme() {
    const shown = getComputedStyle(root).colorScheme, chosen = root.dataset.theme;
    const dark = chosen === "dark" || (chosen !== "light" && shown !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme) } catch { /* storage is off: this page only */ }
    doc.dispatchEvent(new Event("sb:theme"));
  }

  async function copy(text, button) {
    try { await navigator.clipboard.writeText(text) } catch {
      const field = make("textarea", "sr", text);
      button.after(field); field.select(); doc.execCommand("copy"); field.remove();
    }
    button.focus(); say("Copied");
  }

  /* toasts: three at most; a failure stays until it is closed */
  function toast({ text, fail = false }) {
    const box = doc.getElementById("toasts"), el = make("div", fail ? "toast fail" : "toast"), close = make("button", "copy");
    el.setAttribute("role", fail ? "alert" : "status");
    close.type = "button"; close.ariaLabel = "Close message"; close.append(icon("x")); close.onclick = () => el.remove();
    el.append(make("p", "", text), close);
    box.append(el);
    while (box.childElementCount > 3) box.firstElementChild.remove();
    if (fail) return;
    let timer;
    const start = () => { timer = setTimeout(() => el.remove(), 6000) }, stop = () => clearTimeout(timer);
    for (const name of ["pointerenter", "focusin"]) el.addEventListener(name, stop);
    for (const name of ["pointerleave", "focusout"]) el.addEventListener(name, start);
    start();
  }
  doc.addEventListener("sb:toast", e => toast(e.detail));
  doc.addEventListener("htmx:response:error", e => {
    const { ctx } = e.detail, status = ctx.response.status, id = ctx.response.headers.get("x-request-id");
    if (ctx.live || status === 422) return;
    const why = { 403: "You may not do that.", 404: "That is no longer there.", 409: "Somebody was faster, or it has changed. Reload to see it.", 410: "It has expired.", 429: "Too many requests. Wait a moment." }[status];
    toast({ text: `${why ?? `The server answered ${status}.`}${id ? ` Request ${id}` : ""}`, fail: true });
  });
  doc.addEventListener("htmx:error", e => { if (!e.detail.ctx?.live) toast({ text: "The server cannot be reached. Nothing was changed.", fail: true }) });

  /* times: UTC from the server, the reader's zone here; offset = how far this clock is from the server's */
  const nav = performance.getEntriesByType("navigation")[0];
  const offset = nav ? root.dataset.now * 1000 + 500 - (performance.timeOrigin + nav.responseStart) : 0;
  const now = () => Date.now() + (Math.abs(offset) > 1500 ? offset : 0);
  const zone = root.dataset.zone === "local" ? undefined : root.dataset.zone || "UTC";
  const format = options => new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options });
  const clock = format({ hour: "2-digit", minute: "2-digit", second: "2-digit" }), day = format({ day: "numeric", month: "short", year: "numeric" });
  const suffix = zone === "UTC" ? " UTC" : "";
  const two = n => String(n).padStart(2, "0");
  function ago(ms) {
    const s = Math.abs(ms) / 1000, words = s < 60 ? `${Math.floor(s)}s` : s < 3600 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)}h ${two(Math.floor(s / 60) % 60)}m`;
    return ms < 0 ? `in ${words}` : s < 5 ? "just now" : `${words} ago`;
  }
  function writeTime(el) {
    const at = new Date(el.dateTime), age = now() - at, style = el.dataset.when;
    if (isNaN(at)) return;
    const full = `${day.format(at)} ${clock.format(at)}${suffix}`, near = Math.abs(age) < 864e5;
    const short = style === "date" ? day.format(at) : style === "relative" && near && !root.dataset.absolute ? ago(age) : near ? clock.format(at) + suffix : full;
    if (el.textContent !== short) el.textContent = short;
    el.title = full;
  }
  function left(ms) {
    const s = Math.ceil(ms / 1000);
    if (s < 600) return `${two(Math.floor(s / 60))}:${two(s % 60)}`;
    const m = Math.floor(s / 60);
    return m < 60 ? `${m} min` : m < 1440 ? `${Math.floor(m / 60)} h ${two(m % 60)}` : `${Math.floor(m / 1440)} d ${Math.floor(m / 60) % 24} h`;
  }
  function countDown(el) {
    const rest = Date.parse(el.dataset.countdown) - now(), out = el.querySelector("b") ?? el, s = Math.ceil(rest / 1000);
    if (isNaN(rest)) return;
    const words = rest > 0 ? left(rest) : "Expired";
    if (out.textContent !== words) out.textContent = words;
    el.classList.toggle("t-wait", s < 600);
    if (s === 300 || s === 60) say(`${s / 60} minute${s > 60 ? "s" : ""} left`);
    if (rest > 0 || "expired" in el.dataset) return;
    el.dataset.expired = ""; say("Expired");
    for (const b of all("button", el.closest("form[data-locks]") ?? el)) b.disabled = true;
    doc.dispatchEvent(new Event("sb:expired"));
  }
  const writeTimes = () => all("time[data-when]").filter(t => !t.closest("[data-countdown]")).forEach(writeTime);
  const tick = () => all("[data-countdown]").forEach(countDown);

  /* dialogs */
  const open = id => { const d = doc.getElementById(id); if (d && !d.open) d.showModal() };
  function typed(field) {
    const button = field.form.querySelector("[type=submit]");
    button.ariaDisabled = String(field.value !== field.dataset.typed);
  }
  doc.addEventListener("submit", e => {
    const form = e.target, off = form.querySelector("[type=submit][aria-disabled=true]");
    if (off || (form.dataset.once !== undefined && form.dataset.sent)) { e.preventDefault(); e.stopImmediatePropagation(); return }
    if (form.dataset.once !== undefined) { form.dataset.sent = "1"; setTimeout(() => delete form.dataset.sent, 10000) }
  }, true);
  doc.addEventListener("htmx:finally:request", e => { const form = e.target.closest?.("form[data-once]"); if (form) { delete form.dataset.sent; if (e.detail.ctx?.response?.status < 400) form.closest("dialog")?.close() } });

  /* palette: the sidebar's pages, and ids */
  const palette = doc.getElementById("palette"), list = doc.getElementById("palette-list");
  function find(text) {
    const wanted = text.trim().toLowerCase(), ids = { agt_: "run", apr_: "approval", unk_: "unknown" }, found = [];
    const kind = ids[wanted.slice(0, 4)];
    if (kind) found.push({ label: text.trim(), group: `Open ${kind}`, url: list.dataset[`${kind}Url`] + encodeURIComponent(text.trim()) + "/" });
    for (const a of all(".side .nav a")) {
      const label = a.querySelector(".lbl").textContent;
      if (label.toLowerCase().includes(wanted)) found.push({ label, group: a.closest(".nav").ariaLabel, url: a.href, icon: a.querySelector("svg").cloneNode(true) });
    }
    list.replaceChildren(...found.map(({ label, group, url, icon: picture }, n) => {
      const li = make("li", "");
      li.id = `pal-${n}`; li.setAttribute("role", "option"); li.dataset.url = url;
      li.append(picture ?? icon("chevron-right"), label, make("span", "g", group));
      return li;
    }));
    pick(0);
  }
  function pick(n) {
    const rows = all("[role=option]", list), field = palette.querySelector("input");
    rows.forEach((row, i) => row.setAttribute("aria-selected", String(i === n)));
    if (rows[n]) { field.setAttribute("aria-activedescendant", rows[n].id); list.scrollTop = Math.max(0, rows[n].offsetTop - 120) } else field.removeAttribute("aria-activedescendant");
  }
  function paletteKey(e) {
    const rows = all("[role=option]", list), at = rows.findIndex(row => row.ariaSelected === "true");
    const next = { ArrowDown: at + 1, ArrowUp: at - 1 }[e.key];
    if (next !== undefined) { e.preventDefault(); pick((next + rows.length) % rows.length) }
    if (e.key === "Enter" && rows[at]) { e.preventDefault(); location.assign(rows[at].dataset.url) }
  }
  if (palette) {
    const field = palette.querySelector("input");
    field.addEventListener("input", () => find(field.value));
    field.addEventListener("keydown", paletteKey);
    list.addEventListener("click", e => { const row = e.target.closest("[role=option]"); if (row) location.assign(row.dataset.url) });
  }
  function openPalette() { if (palette) { palette.querySelector("input").value = ""; find(""); open("palette") } }

  /* keyboard: single keys only outside fields and dialogs, and only while Settings allow them */
  let gone = 0;
  function walk(step) {
    const rows = all("[data-keys] [data-row]").filter(row => row.offsetParent), at = rows.findIndex(row => row.contains(doc.activeElement));
    const start = at < 0 ? rows.findIndex(row => row.ariaCurrent === "true") : at;
    const row = rows[Math.min(rows.length - 1, Math.max(0, start + step))];
    if (row) (row.matches("a, button, [tabindex]") ? row : row.querySelector("a, button")).focus();
  }
  function singleKey(e) {
    const key = e.key.toLowerCase();
    if (Date.now() - gone < 1500) {
      gone = 0;
      const page = all(".side .nav a").find(a => a.querySelector(".lbl").textContent.toLowerCase().startsWith(key));
      if (page) { e.preventDefault(); page.click() }
      return;
    }
    if (key === "g") { gone = Date.now(); return }
    const act = { "/": () => doc.querySelector("[data-filter]")?.focus(), "?": () => open("keys"), j: () => walk(1), k: () => walk(-1) }[key];
    const own = !act && /^[a-z0-9[\]]$/.test(key) && doc.querySelector(`[data-key="${CSS.escape(key)}"]:not(:disabled)`);
    if (act || own) { e.preventDefault(); act ? act() : own.click() }
  }
  doc.addEventListener("keydown", e => {
    const chord = e.ctrlKey || e.metaKey, dialog = doc.querySelector("dialog[open]");
    if (chord && e.key.toLowerCase() === "k") { e.preventDefault(); if (!dialog) openPalette(); return }
    if (chord && e.key === "Enter") { const form = dialog?.querySelector("form") ?? e.target.closest?.("form[data-locks]"); if (form) { e.preventDefault(); form.requestSubmit() } return }
    if (chord || e.altKey || dialog || e.defaultPrevented || doc.body.dataset.singleKeys === "off") return;
    if (!e.target.closest?.("input, textarea, select, [contenteditable], [role=tree]") || e.target.matches("[type=checkbox]")) singleKey(e);
  });

  doc.addEventListener("click", e => {
    const hit = q => e.target.closest(q);
    let el;
    if (hit("[data-theme-toggle]")) toggleTheme();
    else if ((el = hit("[data-copy]"))) copy(el.dataset.copy.startsWith("#") ? location.href.split("#")[0] + el.dataset.copy : el.dataset.copy, el);
    else if ((el = hit("[data-open]"))) el.dataset.open === "palette" ? openPalette() : open(el.dataset.open);
    else if ((el = hit("[data-close]"))) el.closest("dialog").close();
    else if (e.target.matches("dialog[open]")) e.target.close();
    for (const menu of all("details.menu[open]")) if (!menu.contains(e.target)) menu.open = false;
  });
  doc.addEventListener("input", e => { if (e.target.matches("[data-typed]")) typed(e.target) });
  doc.addEventListener("htmx:after:swap", () => { writeTimes(); tick() });
  doc.addEventListener("sb:zone", writeTimes);
  writeTimes(); tick();
  setInterval(tick, 1000);
  setInterval(writeTimes, 15000);
})();
