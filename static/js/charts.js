/* Charts. Contract: <figure class="card"><div class="cap">…<button data-chart-data>Data</button></div><div class="lgd"></div>
   <div class="chart" id="c1" data-chart="c1-figure" role="img" aria-label="plain words" hx-morph-skip></div>
   {{ figure|json_script:"c1-figure" }}</figure>
   The JSON is {data, layout, links?}: Plotly's own, with colours as token names ("--c1"), no template. `links`: a URL for each
   point of the first trace, opened by a click. A live fetch of the figure replaces the JSON; the picture is redrawn from it, never while
   the pointer or the focus is in it. */
(() => {
  "use strict";
  const doc = document, SVG = "http://www.w3.org/2000/svg";
  const all = (q, from = doc) => [...from.querySelectorAll(q)];
  const probe = doc.createElement("i");
  probe.hidden = true;
  doc.body.append(probe);
  const colour = name => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color };
  /* labels of hours are UTC, as every time from the server; shown in the reader's zone where they asked for it */
  const abroad = doc.documentElement.dataset.zone === "local";
  const hour = text => { const at = new Date(); at.setUTCHours(...text.split(":")); return at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" }) };
  const word = text => text.startsWith("--") ? colour(text) : abroad && /^\d\d:\d\d$/.test(text) ? hour(text) : text;
  const deep = value => typeof value === "string" ? word(value) : Array.isArray(value) ? value.map(deep) : value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, deep(v)])) : value;
  const figures = new Map();

  function frame({ xaxis = {}, yaxis = {}, ...rest }) {
    const faint = colour("--text-3"), grid = colour("--grid"), clear = "rgba(0,0,0,0)";
    return {
      margin: { l: 38, r: 14, t: 8, b: 26 }, paper_bgcolor: clear, plot_bgcolor: clear, hovermode: "x unified", showlegend: false, bargap: .22, uirevision: "keep",
      font: { family: "Inter, system-ui, sans-serif", size: 11, color: faint },
      hoverlabel: { bgcolor: colour("--surface"), bordercolor: colour("--line-2"), font: { color: colour("--text"), size: 12 } },
      ...rest,
      xaxis: { gridcolor: clear, zeroline: false, nticks: 6, fixedrange: true, linecolor: grid, ...xaxis },
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
  function draw(el, force) {
    const source = doc.getElementById(el.dataset.chart)?.textContent, known = figures.get(el);
    if (!source || (!force && known?.source === source)) return;
    if (!force && known && (doc.hidden || el.matches(":hover, :focus-within"))) return;
    const { data, layout, links } = deep(JSON.parse(source)), box = el.parentElement.querySelector(".lgd");
    if (!known) el.addEventListener("click", () => { const at = figures.get(el).over; if (at) location.assign(at) });
    figures.set(el, { source, links });
    Plotly.react(el, data, frame(layout ?? {}), { displayModeBar: false, responsive: true });
    if (!known && links) {
      el.on("plotly_hover", e => { const f = figures.get(el); f.over = f.links?.[e.points[0].pointNumber] });
      el.on("plotly_unhover", () => { figures.get(el).over = null });
    }
    if (box) legend(box, data);
  }
  function table(el) {
    const { data } = deep(JSON.parse(doc.getElementById(el.dataset.chart).textContent)), flat = data[0].orientation === "h";
    const out = doc.createElement("table"), xs = data[0][flat ? "y" : "x"] ?? [];
    const row = (cells, tag) => { const tr = out.insertRow(); for (const text of cells) { const cell = doc.createElement(tag); cell.textContent = text ?? ""; tr.append(cell) } };
    out.className = "tbl";
    row(["", ...data.map(trace => trace.name ?? "")], "th");
    xs.forEach((x, i) => row([x, ...data.map(trace => trace[flat ? "x" : "y"]?.[i])], "td"));
    return out;
  }
  function toggle(button) {
    const figure = button.closest("figure"), el = figure.querySelector("[data-chart]"), old = figure.querySelector(".chart-table");
    button.ariaPressed = String(!old);
    el.hidden = !old;
    if (old) { old.remove(); draw(el, true); return }
    const box = doc.createElement("div");
    box.className = "chart-table scroll-x"; box.tabIndex = 0; box.setAttribute("role", "region"); box.ariaLabel = "Data of the chart";
    box.append(table(el)); el.after(box);
  }
  const drawAll = force => all("[data-chart]").forEach(el => el.hidden || draw(el, force));
  doc.addEventListener("click", e => { const button = e.target.closest("[data-chart-data]"); if (button) toggle(button) });
  doc.addEventListener("sb:theme", () => drawAll(true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
  doc.addEventListener("htmx:after:swap", () => drawAll(false));
  doc.addEventListener("pointerleave", e => { if (e.target.matches?.("[data-chart]")) draw(e.target) }, true);
  drawAll(true);
})();
