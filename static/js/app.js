/* The console's own behaviour on top of plain pages. Markup contract:
   data-theme-toggle · data-copy="text" · data-open="dialog-id" · data-close · data-typed="name" (confirm by typing)
   form[data-once]: a second submit is ignored · <time data-when="relative|absolute|date" datetime> · data-countdown="ISO",
   inside form[data-locks] the buttons lock at zero · .toast by document event sb:toast {text, fail} · a dialog that is about to open
   hears sb:open · [name=reason] of a form that posts is kept while a session ends (body[data-who] says whose it is). */
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
    try { localStorage.setItem("theme", root.dataset.theme) } catch { /* storage is off: the server keeps it */ }
    const form = doc.querySelector("[data-theme-toggle]")?.form;
    if (form) { const said = new FormData(form); said.set("theme", root.dataset.theme); fetch(form.action, { method: "POST", body: said, redirect: "manual", keepalive: true }).catch(() => { /* this page only */ }) }
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
  const format = options => new Intl.DateTimeFormat("en-GB", { timeZone: zone, hourCycle: root.dataset.clock === "12" ? "h12" : "h23", ...options });
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
  const open = id => { const d = doc.getElementById(id); if (d && !d.open) { d.dispatchEvent(new Event("sb:open")); d.showModal() } };
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

  /* what is typed as a reason outlives a session that ends: kept in this tab until it was received, or somebody else is in */
  const who = doc.body.dataset.who, REASON = "form[method=post] [name=reason], form.dec [name=reason]";
  const drawer = (() => { try { return sessionStorage } catch { return {} } })();
  const slot = form => `typed ${new URL(form.getAttribute("action") || "", location.href).pathname}`;
  const keep = (form, text, sent) => { if (text) drawer[slot(form)] = JSON.stringify({ who, text, sent }); else delete drawer[slot(form)] };
  const entered = /\/sign-in\//.test(doc.referrer), elsewhere = !doc.referrer.startsWith(location.origin);
  function giveBack() {
    const back = new Set();
    for (const name of Object.keys(drawer).filter(name => name.startsWith("typed "))) {
      const { who: whose, text, sent } = JSON.parse(drawer[name]), field = all(REASON).find(one => slot(one.form) === name);
      if (whose !== who || (sent && !entered && !elsewhere)) delete drawer[name];
      else if (field && !field.value) { field.value = text; keep(field.form, text); back.add(name); field.dispatchEvent(new Event("input", { bubbles: true })) }
    }
    if (back.size) toast({ text: `${entered ? "You are signed in again. " : ""}The reason you had typed is still here. It was not sent.` });
  }
  doc.addEventListener("input", e => { if (e.target.matches(REASON)) keep(e.target.form, e.target.value) });
  doc.addEventListener("submit", e => {
    const form = e.target, reason = form.querySelector("[name=reason]");
    if (/\/sign-out\/$/.test(form.getAttribute("action"))) for (const name of Object.keys(drawer)) delete drawer[name];
    else if (reason?.matches(REASON) && form.method === "post" && !e.defaultPrevented) keep(form, reason.value, true);
  });
  doc.addEventListener("htmx:finally:request", e => {
    const { ctx } = e.detail, form = e.target.closest?.("form[method=post]"), reason = form?.querySelector("[name=reason]");
    if (reason) keep(form, ctx.response?.status < 400 && !ctx.hx?.redirect?.startsWith("/sign-in/") ? "" : reason.value);
  });

  doc.addEventListener("click", e => {
    const hit = q => e.target.closest(q);
    let el;
    if (hit("[data-theme-toggle]")) { e.preventDefault(); toggleTheme() }
    else if ((el = hit("[data-copy]"))) copy(el.dataset.copy.startsWith("#") ? location.href.split("#")[0] + el.dataset.copy : el.dataset.copy, el);
    else if ((el = hit("[data-open]"))) open(el.dataset.open);
    else if ((el = hit("[data-close]"))) el.closest("dialog").close();
    else if (e.target.matches("dialog[open]")) e.target.close();
    for (const menu of all("details.menu[open]")) if (!menu.contains(e.target)) menu.open = false;
  });
  doc.addEventListener("input", e => { if (e.target.matches("[data-typed]")) typed(e.target) });
  doc.addEventListener("htmx:after:swap", () => { writeTimes(); tick() });
  doc.addEventListener("sb:zone", writeTimes);
  writeTimes(); tick();
  doc.addEventListener("DOMContentLoaded", giveBack); // when every script listens
  setInterval(tick, 1000);
  setInterval(writeTimes, 15000);
})();
