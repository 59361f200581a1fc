/* Charts. Contract: components/chart.html, <figure><div class="cap">…<b data-chart-value></b><button data-chart-data>Data</button></div>
   <div class="lgd"></div><div class="plot"><div class="chart" data-chart="ID" role="img" aria-label="plain words"></div></div></figure>
   and somewhere <script type="application/json" id="ID">, what console.charts says: {data, layout}, Plotly's own with colours as token
   names and moments as 2026-01-31T12:00:00Z, and words, writes, value, unit, links, markers.
   A live fetch replaces the JSON; the picture follows it, at most every ten seconds, never while the pointer or the focus is in it or
   the page is hidden. [data-chart-says]: its words are announced when they change (live.js speaks, at most every five seconds). */
(() => {
  "use strict";
  const doc = document, SVG = "http://www.w3.org/2000/svg", PAUSE = 10000, NEAR = 26;
  const all = (q, from = doc) => [...from.querySelectorAll(q)];
  const make = (tag, css, text = "") => { const el = doc.createElement(tag); el.className = css; el.textContent = text; return el };
  const probe = doc.createElement("i");
  probe.hidden = true;
  doc.body.append(probe);
  const colour = name => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color };

  /* moments: UTC from the server, in the reader's zone on the axis and in words */
  const { zone, clock: hours } = doc.documentElement.dataset, timeZone = zone === "local" ? undefined : zone || "UTC", hourCycle = hours === "12" ? "h12" : "h23";
  const format = (locale, options) => new Intl.DateTimeFormat(locale, { timeZone, hourCycle, ...options });
  const clock = { hour: "2-digit", minute: "2-digit" }, date = { day: "numeric", month: "short" };
  const formats = { time: format("en-GB", clock), moment: format("en-GB", { ...date, ...clock }), day: format("en-GB", date) };
  const wallClock = format("sv-SE", { dateStyle: "short", timeStyle: "medium", hourCycle: "h23" });
  const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$/;
  const said = (text, writes) => (formats[writes] ?? formats.moment).format(new Date(text)).replace(",", "");
  const word = text => text.startsWith("--") ? colour(text) : MOMENT.test(text) ? wallClock.format(new Date(text)) : text;
  const deep = value => typeof value === "string" ? word(value) : Array.isArray(value) ? value.map(deep) : value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, deep(v)])) : value;
  const spoken = ({ words = "", writes }) => words.replace(/\{([^}]+Z)\}/g, (_, at) => said(at, writes));
  const figures = new Map();  // the chart's element -> what it shows

  const ticks = axis => Object.fromEntries(["tickformat", "hoverformat"].filter(name => hours === "12" && axis[name]).map(name => [name, axis[name].replace("%H:%M", "%-I:%M %p")]));
  function frame({ xaxis = {}, yaxis = {}, ...rest }) {
    const faint = colour("--text-3"), grid = colour("--grid"), clear = "rgba(0,0,0,0)";
    return {
      margin: { l: 38, r: 14, t: 8, b: 26 }, paper_bgcolor: clear, plot_bgcolor: clear, hovermode: "x unified", showlegend: false, bargap: .22, uirevision: "keep",
      font: { family: "Inter, system-ui, sans-serif", size: 11, color: faint },
      hoverlabel: { bgcolor: colour("--surface"), bordercolor: colour("--line-2"), font: { color: colour("--text"), size: 12 } },
      ...rest,
      xaxis: { gridcolor: clear, zeroline: false, nticks: 6, fixedrange: true, linecolor: grid, ...xaxis, ...ticks(xaxis) },
      yaxis: { gridcolor: grid, zeroline: false, nticks: 4, fixedrange: true, rangemode: "tozero", ...yaxis },
    };
  }
  function shape(tag, attributes) {
    const el = doc.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) el.setAttribute(name, value);
    return el;
  }
  function legend(box, traces) {
    box.replaceChildren(...traces.filter(t => t.name).map(trace => {
      const key = shape("svg", { "aria-hidden": "true" }), bar = trace.type === "bar", item = doc.createElement("span");
      if (bar) key.append(shape("rect", { width: 12, height: 8, rx: 2, fill: trace.marker?.color ?? colour("--c6") }));
      else key.append(shape("line", { x2: 12, y1: 4, y2: 4, stroke: trace.line?.color ?? colour("--c1"), "stroke-width": 2, "stroke-dasharray": { dot: "2 2", dash: "5 2" }[trace.line?.dash] ?? "none" }));
      if (bar && trace.marker?.pattern?.shape) for (const x of [-2, 3, 8]) key.append(shape("line", { x1: x, y1: 8, x2: x + 7, y2: 0, stroke: colour("--surface"), "stroke-width": 1.6 }));
      item.append(key, trace.name);
      return item;
    }));
  }

  /* drawing --------------------------------------------------------------------------------------------------------- */
  const sourceOf = el => doc.getElementById(el.dataset.chart)?.textContent;
  const busy = el => doc.hidden || el.closest("figure").matches(":has(.plot:hover, .plot:focus-within, .chart-table:hover, .chart-table:focus-within)");
  let later;
  function draw(el, force) {
    const source = sourceOf(el), known = figures.get(el);
    if (!source || (!force && known?.source === source)) return;
    if (!force && known) {
      if (busy(el)) return;
      const wait = known.at + PAUSE - Date.now();
      if (wait > 0) { clearTimeout(later); later = setTimeout(drawAll, wait + 50); return }
    }
    const raw = JSON.parse(source), figure = { ...known, raw, source, at: Date.now(), shown: deep({ data: raw.data, layout: raw.layout ?? {}, markers: raw.markers ?? [] }) };
    figures.set(el, figure);
    caption(el, raw, known);
    if (el.hidden) return fill(el);
    Plotly.react(el, figure.shown.data, frame(figure.shown.layout), { displayModeBar: false, responsive: true });
    if (!known?.drawn) listen(el);
    figure.drawn = true;
    el.classList.toggle("leads", Boolean(raw.links?.length));
    const box = el.closest("figure").querySelector(".lgd");
    if (box) legend(box, figure.shown.data);
    cover(el);
  }
  function caption(el, raw, known) {
    const card = el.closest("figure"), words = spoken(raw), value = card.querySelector("[data-chart-value]"), unit = card.querySelector("[data-chart-unit]");
    if (raw.words) el.ariaLabel = words;
    if (value) value.textContent = raw.value;
    if (unit) unit.textContent = raw.unit;
    const say = doc.getElementById("announce");
    if (known && "chartSays" in el.dataset && words !== spoken(known.raw) && say) say.dataset.next = words;
  }
  function listen(el) {
    el.on("plotly_hover", e => { figures.get(el).over = e.points[0].pointNumber });
    el.on("plotly_unhover", () => { figures.get(el).over = null });
    el.on("plotly_afterplot", () => place(el));
    el.addEventListener("click", e => { const f = figures.get(el), to = f.over == null ? null : target(el, f, f.over, e.clientY); if (to) location.assign(to) });
  }
  /* where a place on the axis leads; of a stack the piece that was hit */
  function target(el, { raw }, place, clientY) {
    const axis = el._fullLayout?.yaxis, own = raw.data.some(trace => trace.links);
    if (own && clientY != null && axis) {
      let left = axis.p2d(clientY - el.getBoundingClientRect().top - axis._offset);
      for (const trace of raw.data) { left -= trace.y[place] ?? 0; if (left <= 0 && trace.links) return trace.links[place] }
    }
    return raw.links?.[place];
  }

  /* what lies over the picture: markers, the reader's place on the axis, and the words of either ------------------------ */
  function cover(el) {
    const plot = el.closest(".plot"), { raw } = figures.get(el);
    if (!plot) return;
    let over = plot.querySelector(".over");
    if (!over) { over = make("div", "over"); over.append(make("div", "cursor"), make("div", "tip")); all(".cursor, .tip", over).forEach(one => { one.hidden = true; one.ariaHidden = "true" }); plot.append(over) }
    walk(el, over, raw.links?.length ? count(raw) : 0);
    place(el);
  }
  const flat = raw => raw.data[0]?.orientation === "h";
  const places = raw => raw.data[0]?.[flat(raw) ? "y" : "x"] ?? [];
  const count = raw => places(raw).length;
  const label = (raw, i) => { const at = places(raw)[i]; return MOMENT.test(at) ? said(at, raw.writes) : String(at) };
  function amount(raw, value) {
    const { tickprefix = "", ticksuffix = "" } = raw.layout?.[flat(raw) ? "xaxis" : "yaxis"] ?? {};
    return value == null ? "none" : `${tickprefix}${value}${ticksuffix || (flat(raw) ? "%" : "")}`;
  }
  const reads = (raw, i) => `${label(raw, i)}: ${raw.data.map(t => [t.name, t[flat(raw) ? "x" : "y"][i]]).filter(([, v], n, list) => v || list.length === 1).map(([name, v]) => flat(raw) ? amount(raw, v) : `${name} ${amount(raw, v)}`).join(", ") || "none"}`;
  function walk(el, over, many) {
    let knob = over.querySelector(".knob");
    if (!many) return knob?.remove();
    if (!knob) {
      knob = make("div", "knob");
      knob.tabIndex = 0; knob.role = "slider"; knob.ariaLabel = `Places of ${el.closest("figure").querySelector("h2").textContent}. Enter opens the runs`;
      over.prepend(knob);
      knob.addEventListener("keydown", e => key(el, knob, e));
      knob.addEventListener("focus", () => stand(el, knob, +knob.ariaValueNow - 1));
      knob.addEventListener("blur", () => { over.querySelector(".cursor").hidden = over.querySelector(".tip").hidden = true });
    }
    knob.ariaValueMin = 1; knob.ariaValueMax = many;
    at(el, knob, Math.min(many, +(knob.ariaValueNow ?? many)) - 1);
  }
  function key(el, knob, e) {
    const { raw } = figures.get(el), now = +knob.ariaValueNow - 1, last = +knob.ariaValueMax - 1;
    const to = { ArrowRight: now + 1, ArrowDown: now + 1, ArrowLeft: now - 1, ArrowUp: now - 1, Home: 0, End: last }[e.key];
    if (e.ctrlKey || e.altKey || e.metaKey) return;
    if (e.key === "Enter") { const link = raw.links[index(raw, now)]; if (link) location.assign(link) }
    else if (to === undefined) return;
    else stand(el, knob, Math.min(last, Math.max(0, to)));
    e.preventDefault();
  }
  const index = (raw, n) => flat(raw) ? count(raw) - 1 - n : n;  // lying bars are walked from the top
  function at(el, knob, n) {
    const { raw } = figures.get(el);
    knob.ariaValueNow = n + 1; knob.ariaValueText = reads(raw, index(raw, n));
  }
  function stand(el, knob, n) {
    at(el, knob, n);
    const { raw, shown } = figures.get(el), over = knob.parentElement, cursor = over.querySelector(".cursor"), layout = el._fullLayout, i = index(raw, n);
    const axis = flat(raw) ? layout.yaxis : layout.xaxis, trace = shown.data[0], spot = trace[flat(raw) ? "y" : "x"][i];
    const wide = trace.xperiod ? axis.l2p(axis.d2l(spot) + trace.xperiod) - axis.l2p(axis.d2l(spot)) : axis._length / count(raw);
    const middle = trace.xperiod ? axis.l2p(axis.d2l(spot)) + wide / 2 : axis.d2p(spot), from = axis._offset + middle - wide / 2;
    const [left, top, width, height] = flat(raw) ? [layout.xaxis._offset, from, layout.xaxis._length, wide] : [from, layout.yaxis._offset, wide, layout.yaxis._length];
    for (const [name, value] of Object.entries({ left, top, width, height })) cursor.style[name] = `${value}px`;
    cursor.hidden = false;
    tip(over, knob.ariaValueText, left + width / 2);
  }
  function tip(over, text, middle) {
    const box = over.querySelector(".tip");
    box.hidden = !text; box.textContent = text;
    if (text) box.style.left = `${Math.max(4, Math.min(over.clientWidth - box.offsetWidth - 4, middle - box.offsetWidth / 2))}px`;
  }
  /* changes that stand closer than a finger are one mark, which opens the table */
  function place(el) {
    const over = el.closest(".plot")?.querySelector(".over"), { raw, shown } = figures.get(el), { xaxis: axis, yaxis } = el._fullLayout ?? {};
    if (!over || !axis) return;
    const groups = [];
    shown.markers.forEach((marker, i) => {
      const x = axis._offset + axis.l2p(axis.d2l(marker.at));
      if (x < axis._offset || x > axis._offset + axis._length) return;
      const last = groups.at(-1);
      if (last && x - last.x < NEAR) last.list.push(raw.markers[i]); else groups.push({ x, list: [raw.markers[i]] });
    });
    const old = all(".mark", over), text = list => list.map(m => `${said(m.at, raw.writes === "time" ? "time" : "moment")} ${m.label}`).join("; ");
    groups.forEach(({ x, list }, i) => {
      const words = list.length > 3 ? `${list.length} changes: ${text(list.slice(0, 3))} and more` : text(list), single = list.length === 1 && list[0].url;
      let mark = old[i];
      if (!mark || (mark.localName === "a") !== Boolean(single)) { const fresh = make(single ? "a" : "button", "mark"); if (mark) mark.replaceWith(fresh); else over.append(fresh); mark = fresh }
      if (single) mark.href = list[0].url; else { mark.type = "button"; mark.dataset.chartMore = "" }
      mark.ariaLabel = words;
      mark.style.left = `${x - 12}px`; mark.style.top = `${yaxis._offset}px`; mark.style.setProperty("--high", `${yaxis._length}px`);
    });
    old.slice(groups.length).forEach(mark => mark.remove());
  }

  /* the table ------------------------------------------------------------------------------------------------------- */
  function table(el) {
    const { raw } = figures.get(el), out = make("table", "tbl"), xs = places(raw), { markers = [] } = raw;
    const row = (cells, tag) => { const tr = out.insertRow(); for (const text of cells) { const cell = doc.createElement(tag); if (tag === "th") cell.scope = "col"; if (text instanceof Node) cell.append(text); else cell.textContent = text ?? ""; tr.append(cell) } };
    const during = i => {
      const box = doc.createDocumentFragment(), end = xs[i + 1] ?? "9";
      for (const m of markers.filter(m => m.at >= xs[i] && m.at < end)) { const link = make(m.url ? "a" : "span", "link", `${said(m.at, raw.writes === "time" ? "time" : "moment")} ${m.label} `); if (m.url) link.href = m.url; box.append(link) }
      return box;
    };
    row([flat(raw) ? "Name" : MOMENT.test(xs[0]) ? "From" : "", ...raw.data.map(trace => trace.name ?? ""), ...(markers.length ? ["Changes"] : [])], "th");
    xs.forEach((_, i) => row([label(raw, i), ...raw.data.map(trace => { const v = trace[flat(raw) ? "x" : "y"]?.[i]; return v == null ? "–" : amount(raw, v) }), ...(markers.length ? [during(i)] : [])], "td"));
    return out;
  }
  function fill(el) { const box = el.closest("figure").querySelector(".chart-table"); if (box) box.replaceChildren(table(el)) }
  function toggle(button) {
    const card = button.closest("figure"), el = card.querySelector("[data-chart]"), old = card.querySelector(".chart-table"), hides = el.closest(".plot") ?? el;
    button.ariaPressed = String(!old);
    el.hidden = hides.hidden = !old;
    if (old) { old.remove(); draw(el, true); return }
    const box = make("div", "chart-table scroll-x");
    box.tabIndex = 0; box.role = "region"; box.ariaLabel = `Data of ${card.querySelector("h2").textContent}`;
    hides.after(box);
    fill(el);
  }

  const drawAll = force => all("[data-chart]").forEach(el => draw(el, force === true));
  doc.addEventListener("click", e => {
    const more = e.target.closest("[data-chart-more]"), button = more ? more.closest("figure").querySelector("[data-chart-data]") : e.target.closest("[data-chart-data]");
    if (!button) return;
    toggle(button);
    if (more) button.focus();
  });
  for (const [name, on] of [["pointerover", true], ["focusin", true], ["pointerout", false], ["focusout", false]]) doc.addEventListener(name, e => {
    const mark = e.target.closest?.(".mark");
    if (mark) tip(mark.parentElement, on ? mark.ariaLabel : "", parseFloat(mark.style.left) + 12);
  });
  const settle = e => { if (e.target.closest?.("figure")?.querySelector("[data-chart]")) setTimeout(drawAll, 0) };
  doc.addEventListener("pointerleave", e => { if (e.target.matches?.(".plot, .chart-table")) settle(e) }, true);
  doc.addEventListener("focusout", settle);
  doc.addEventListener("visibilitychange", () => drawAll(false));
  doc.addEventListener("sb:theme", () => drawAll(true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
  doc.addEventListener("htmx:after:swap", () => drawAll(false));
  drawAll(true);
})();
