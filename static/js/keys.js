/* The keyboard and its help. Help shows what LIST says and what is on this page, and the keys do the same: it cannot lie.
   An entry: section, keys, words, the selector that must be there, what it does (absent: another script or the browser does it).
   Markup: data-keys around [data-row] links · [data-filter] · data-key="a" on what the key clicks · #keys with [data-list], #keys-off ·
   #palette[data-src]: its script. Said to run.js and tail.js: sb:step, sb:tree, sb:failure, sb:follow. */
(() => {
  "use strict";
  const doc = document, byId = id => doc.getElementById(id), all = (q, from = doc) => [...from.querySelectorAll(q)];
  const usable = q => all(q).find(el => !el.disabled && !el.closest("[hidden]"));
  const press = q => () => usable(q).click();
  const send = (name, detail) => () => doc.dispatchEvent(new CustomEvent(name, { detail }));
  const pages = () => all(".side .nav a").map(a => ({ a, label: a.querySelector(".lbl").textContent }));
  const GO = { o: "Overview", r: "Runs", a: "Approvals", i: "Incidents", t: "Tools", m: "Models", s: "Spend", e: "Evals" };
  const reached = () => Object.entries(GO).filter(([, label]) => pages().some(page => page.label === label));
  const ROWS = "[data-keys] [data-row]";
  const LIST = [
    ["Everywhere", "Ctrl K", "Search, or jump to a page, an id or a name", "#palette"],
    ["Everywhere", "?", "This help", "#keys", () => doc.querySelector("[data-open=keys]").click()],
    ["Everywhere", "g", () => `Then ${reached().map(([key, label]) => `${key} ${label}`).join(", ")}`, ".side .nav a", () => { gone = Date.now() }],
    ["Everywhere", "Esc", "Close what is open", "#palette"],
    ["Everywhere", "Ctrl Enter", "Send the form of the open dialog", "dialog form, form.edits, form[data-locks]"],
    ["Lists", "/", "Filter the list", "[data-filter]", () => byId("main").querySelector("[data-filter]").focus()],
    ["Lists", "J", "Next row; in a row, the arrow down too", ROWS, () => walk(1)],
    ["Lists", "K", "Row before; in a row, the arrow up too", ROWS, () => walk(-1)],
    ["Lists", "Enter", "Open the row", ROWS],
    ["Runs", "X", "Tick the row", "#runs-list [data-row]", () => boxOf(rowHere())?.click()],
    ["Runs", "C", "Cancel what is ticked, or the row: it asks first", "#runs-list [data-row]", () => ask("c", "cancel")],
    ["Runs", "R", "Try again what is ticked, or the row: it asks first", "#runs-list [data-row]", () => ask("r", "retry")],
    ["Run", "↑ ↓", "Move in the tree", "#tree"],
    ["Run", "← →", "Close and open", "#tree"],
    ["Run", "J", "Next row of the tree", "#tree", send("sb:step", 1)],
    ["Run", "K", "Row before", "#tree", send("sb:step", -1)],
    ["Run", "E", "Open everything", "#tree", send("sb:tree", true)],
    ["Run", "W", "Close everything", "#tree", send("sb:tree", false)],
    ["Run", "F", "Follow the live tail", "#tail[data-live-tail]", send("sb:follow")],
    ["Run", "[", "Failure before", "#tree [data-bad]", send("sb:failure", -1)],
    ["Run", "]", "Next failure", "#tree [data-bad]", send("sb:failure", 1)],
    ["Run", "Y", "Copy the link to what is selected", "#inspector [data-copy]", press("#inspector [data-copy]")],
    ["Run", "C", "Cancel the run: it asks first", "[data-open=cancel-run]", press("[data-open=cancel-run]")],
    ["Run", "R", "Try again: it asks first", "[data-open=retry-run]", press("[data-open=retry-run]")],
    ["Approval", "A", "Approve: it asks first", "[data-key=a]", press("[data-key=a]")],
    ["Approval", "R", "Reject: it asks first", ".det [data-key=r]", press(".det [data-key=r]")],
    ["Approval", "E", "Edit the arguments", ".det [data-key=e]", press(".det [data-key=e]")],
    ["Approval", "O", "Open the run", ".det [data-key=o]", press(".det [data-key=o]")],
  ];
  const off = () => doc.body.dataset.singleKeys === "off";
  const isSingle = keys => keys.length === 1;
  let gone = 0;

  /* what the pages mark themselves (data-key) and the list does not know */
  function here() {
    const known = LIST.filter(([, , , on]) => doc.querySelector(on) && usable(on));
    const own = all("[data-key]").filter(el => usable(`[data-key="${CSS.escape(el.dataset.key)}"]`) === el && !known.some(([, keys, , on]) => keys.toLowerCase() === el.dataset.key && el.matches(on)));
    return [...known, ...own.filter(el => !known.some(([, keys]) => keys.toLowerCase() === el.dataset.key)).map(el => ["This page", el.dataset.key.toUpperCase(), wordsOf(el), "*", () => el.click()])];
  }
  const wordsOf = el => (el.ariaLabel || [...el.childNodes].filter(node => node.nodeName !== "KBD").map(node => node.textContent).join("")).trim();

  /* rows */
  const rowHere = () => { const rows = all(ROWS).filter(row => row.offsetParent); return rows.find(row => row.closest("tr, li, .with-tick")?.contains(doc.activeElement) || row.contains(doc.activeElement)) };
  const boxOf = row => row?.closest("tr")?.querySelector("input[type=checkbox]");
  function walk(step) {
    const rows = all(ROWS).filter(row => row.offsetParent), at = rows.indexOf(rowHere());
    const start = at < 0 ? rows.findIndex(row => row.ariaCurrent === "true") : at;
    const row = rows[Math.min(rows.length - 1, Math.max(0, start + step))];
    if (row) (row.matches("a, button, [tabindex]") ? row : row.querySelector("a, button")).focus();
  }
  function ask(key, verb) {
    const together = usable(`.bulk [data-key=${key}]`), row = rowHere();
    if (together) together.click();
    else if (row) location.assign(`${row.href}?ask=${verb}`);
    else byId("announce").textContent = "Go to a row with J and K first.";
  }

  /* keys: single ones only outside fields and dialogs, without modifiers, and while Settings allow them */
  const typing = el => el.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");
  function single(e) {
    const key = e.key.toLowerCase(), hurried = Date.now() - gone < 1500;
    gone = 0;
    if (hurried && GO[key]) { const page = pages().find(({ label }) => label === GO[key]); if (page) { e.preventDefault(); page.a.click() } return }
    const arrow = rowHere() && { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (arrow) { e.preventDefault(); return walk(arrow) }
    if (key.length > 1 || (e.shiftKey && /[a-z]/.test(key))) return;
    const entry = here().find(([, keys, , , act]) => act && keys.toLowerCase() === key);
    if (entry) { e.preventDefault(); entry[4]() }
  }
  doc.addEventListener("keydown", e => {
    const chord = e.ctrlKey || e.metaKey, dialog = doc.querySelector("dialog[open]");
    if (chord && e.key.toLowerCase() === "k") { e.preventDefault(); if (!dialog) press("[data-open=palette]")(); return }
    if (chord && e.key === "Enter") { const form = dialog?.querySelector("form") ?? e.target.closest?.("form[data-locks]"); if (form) { e.preventDefault(); form.requestSubmit() } return }
    if (e.key === "Escape" && !dialog) for (const menu of all("details.menu[open]")) { menu.open = false; if (menu.contains(doc.activeElement)) menu.querySelector("summary").focus() }
    if (!chord && !e.altKey && !dialog && !e.defaultPrevented && !off() && !typing(e.target)) single(e);
  });

  /* help */
  byId("keys")?.addEventListener("sb:open", () => {
    const box = byId("keys").querySelector("[data-list]"), entries = here(), sections = new Set(entries.map(([section]) => section));
    const make = (tag, text = "") => { const el = doc.createElement(tag); el.textContent = text; return el };
    byId("keys-off").hidden = !off();
    box.replaceChildren(...[...sections].flatMap(section => {
      const dl = make("dl"), rows = entries.filter(([of, keys]) => of === section && !(off() && isSingle(keys)));
      dl.className = "keys";
      for (const [, keys, words] of rows) {
        const dt = make("dt");
        dt.append(...keys.split(" ").map(key => make("kbd", key)));
        dl.append(dt, make("dd", typeof words === "function" ? words() : words));
      }
      return rows.length ? [make("h3", section), dl] : [];
    }));
  });

  /* the palette is fetched when it is first opened */
  byId("palette")?.addEventListener("sb:open", () => doc.head.append(Object.assign(doc.createElement("script"), { src: byId("palette").dataset.src })), { once: true });
})();
