/* The palette: pages, ids, names and what this person may do. keys.js fetches this file when the palette first opens. Markup contract:
   #palette (data-search: answers {items: [{label, group, url, icon, post?}]}, data-ids="agt:/runs/ …", data-who) with an input, a
   listbox, a [role=status] and a template of an option · [data-key]: what the page offers · nothing here decides: it follows links,
   clicks what is on the page, and posts what the server offered. */
(() => {
  "use strict";
  const doc = document, byId = id => doc.getElementById(id), all = (q, from = doc) => [...from.querySelectorAll(q)];
  const palette = byId("palette");
  const wordsOf = el => (el.ariaLabel || [...el.childNodes].filter(node => node.nodeName !== "KBD").map(node => node.textContent).join("")).trim();
  const field = palette.querySelector("input"), list = byId("palette-list"), none = palette.querySelector("[role=status]");
  const ids = Object.fromEntries(palette.dataset.ids.split(" ").map(pair => pair.split(":")));
  const RECENT = `recent ${palette.dataset.who}`;
  const recent = () => { try { return JSON.parse(sessionStorage.getItem(RECENT)) ?? [] } catch { return [] } };
  let asking, later;
  const clicks = (label, q, icon, group = "Do") => ({ label, group, icon, click: q });
  function own() {
    const marked = all("[data-key]").filter(el => !el.disabled && !el.closest("dialog, [hidden]")).map(el => ({ label: wordsOf(el), group: "This page", icon: "chevron-right", click: el }));
    const live = doc.querySelector("[data-live-state]"), zone = doc.querySelector(".top form[action*='/zone/'] button");
    return [
      ...marked,
      clicks("Keyboard shortcuts", "[data-open=keys]", "keyboard"), clicks("Switch colour theme", "[data-theme-toggle]", "sun-moon"),
      ...(live ? [clicks(live.dataset.state === "paused" ? "Resume live updates" : "Pause live updates", "[data-live-state]", "circle-pause")] : []),
      ...(zone ? [clicks(zone.ariaLabel.split(". ").at(-1), zone, "clock")] : []), clicks("Sign out", ".side-foot form button", "log-out"),
    ];
  }
  function anId(text) {
    const found = /\b([a-z]{3})_([0-9a-hjkmnp-tv-z]{26})\b/i.exec(text), prefix = found?.[1].toLowerCase();
    return prefix in ids ? [{ label: `${prefix}_${found[2].toUpperCase()}`, group: "Open", icon: "chevron-right", url: `${ids[prefix]}${prefix}_${found[2].toUpperCase()}/` }] : [];
  }
  function known(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean), sidebar = all(".side .nav a").map(a => ({ label: a.querySelector(".lbl").textContent, group: a.closest(".nav").ariaLabel, url: a.pathname, icon: a.querySelector("use").getAttribute("href").split("#i-")[1] }));
    const fits = item => words.every(word => ` ${item.label} ${item.group}`.toLowerCase().includes(` ${word}`));
    return [...anId(text), ...(words.length ? [] : recent()), ...sidebar.filter(fits), ...own().filter(fits)];
  }
  const address = item => item.url && (item.post ? item.label : item.url);
  let shown = [];
  function add(items) {
    for (const item of items) {
      if (address(item) && shown.some(one => address(one) === address(item))) continue;
      const row = palette.querySelector("template").content.cloneNode(true).firstElementChild, use = row.querySelector("use");
      row.id = `pal-${shown.push(item)}`;
      use.setAttribute("href", `${doc.documentElement.dataset.sprite}#i-${item.icon}`);
      row.children[1].textContent = item.label; row.lastElementChild.textContent = item.group;
      list.append(row);
    }
    const empty = !shown.length;
    list.hidden = empty; field.ariaExpanded = String(!empty);
    if (!palette.querySelector("[aria-selected=true]")) pick(0);
  }
  function tell(words) { none.textContent = words; none.classList.toggle("sr", shown.length > 0) }
  function pick(n) {
    const rows = [...list.children];
    rows.forEach((row, i) => row.setAttribute("aria-selected", String(i === n)));
    if (rows[n]) { field.setAttribute("aria-activedescendant", rows[n].id); list.scrollTop = Math.max(0, rows[n].offsetTop - 120) } else field.removeAttribute("aria-activedescendant");
  }
  function find() {
    const text = field.value.trim();
    shown = []; list.replaceChildren(); add(known(text)); tell(shown.length ? "" : "Searching…");
    clearTimeout(later); asking?.abort();
    later = setTimeout(async () => {
      asking = new AbortController();
      try {
        const answer = await fetch(`${palette.dataset.search}?q=${encodeURIComponent(text)}`, { signal: asking.signal });
        if (!answer.ok || answer.redirected) throw new Error(answer.status);
        add((await answer.json()).items);
        tell(shown.length ? `${shown.length} found` : "Nothing is called that. Try a page, the name of an agent, a tool or a model, or paste an id.");
      } catch (error) { if (error.name !== "AbortError") tell(shown.length ? "" : "Names cannot be searched now: the server does not answer.") }
    }, text ? 120 : 0);
  }
  function go(item) {
    palette.close();
    if (item.click) return (item.click.click ? item.click : doc.querySelector(item.click)).click();
    if (!item.post) {
      try { sessionStorage.setItem(RECENT, JSON.stringify([{ ...item, group: "Recent" }, ...recent().filter(one => one.url !== item.url)].slice(0, 6))) } catch { /* nothing is remembered */ }
      return location.assign(item.url);
    }
    const form = doc.createElement("form"), token = JSON.parse(doc.body.getAttribute("hx-headers:inherited"))["X-CSRFToken"];
    form.method = "post"; form.action = item.url;
    for (const [name, value] of Object.entries({ ...item.post, csrfmiddlewaretoken: token })) form.append(Object.assign(doc.createElement("input"), { type: "hidden", name, value }));
    doc.body.append(form); form.requestSubmit();
  }
  palette.addEventListener("sb:open", () => { field.value = ""; find() });
  palette.addEventListener("close", () => asking?.abort());
  field.addEventListener("input", find);
  field.addEventListener("keydown", e => {
    const rows = [...list.children], at = rows.findIndex(row => row.ariaSelected === "true");
    const next = { ArrowDown: at + 1, ArrowUp: at - 1 }[e.key];
    if (next !== undefined && rows.length) { e.preventDefault(); pick((next + rows.length) % rows.length) }
    if (e.key === "Enter" && shown[at]) { e.preventDefault(); go(shown[at]) }
  });
  list.addEventListener("click", e => { const row = e.target.closest("[role=option]"); if (row) go(shown[[...list.children].indexOf(row)]) });
  find();
})();
