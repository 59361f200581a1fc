/* Runs that are ticked, and what is done to them together. Markup contract:
   input[form=bulk-runs]           a tick; with Shift, all between it and the last one become as it is · [data-all] ticks all shown
   #bulk-runs.bulk                 the bar, there while something is ticked; its answer fills #bulk-dialog, which opens
   [data-counts=Verb] span         "Verb 3 runs" · [data-two] wants exactly two · [data-shown] all shown · [data-clear] · [data-picked] what is ticked, in words
   #bulk-all                       hears sb:all when all shown are ticked, and counts all that match
   C and R press the buttons: they open the dialog and submit nothing. */
(() => {
  "use strict";
  const doc = document, bar = doc.getElementById("bulk-runs"), dialog = doc.getElementById("bulk-dialog");
  if (!bar) return;
  const all = (q, from = doc) => [...from.querySelectorAll(q)];
  const ticks = () => all("input[form=bulk-runs]"), header = () => doc.querySelector("#runs-list [data-all]");
  const runs = n => `${n} run${n === 1 ? "" : "s"}`;
  let last = "", full = false;

  function show() {
    const shown = ticks(), n = shown.filter(tick => tick.checked).length, head = header();
    bar.hidden = !n;
    bar.querySelector("[data-clear]").hidden = false;
    bar.querySelector("[data-shown]").hidden = n === shown.length;
    bar.querySelector("[data-picked]").textContent = `${runs(n)} selected`;
    for (const button of all("[data-counts]", bar)) { button.disabled = !n; button.querySelector("span").textContent = `${button.dataset.counts} ${runs(n)}` }
    bar.querySelector("[data-two]").disabled = n !== 2;
    if (head) { head.hidden = false; head.checked = n > 0 && n === shown.length; head.indeterminate = n > 0 && n < shown.length }
    const whole = n > 0 && n === shown.length;
    if (whole && !full) doc.getElementById("bulk-all")?.dispatchEvent(new Event("sb:all"));
    full = whole;
  }
  function between(tick) {
    const shown = ticks(), [from, to] = [shown.findIndex(one => one.id === last), shown.indexOf(tick)].sort((a, b) => a - b);
    if (from >= 0) for (const one of shown.slice(from, to + 1)) one.checked = tick.checked;
  }
  function set(checked) { for (const tick of ticks()) tick.checked = checked; last = ""; show() }

  doc.addEventListener("click", e => {
    const tick = e.target.closest("input[form=bulk-runs]");
    if (tick) { if (e.shiftKey) between(tick); last = tick.id; show() }
    else if (e.target.closest("[data-all]")) set(e.target.checked);
    else if (e.target.closest("#bulk-runs [data-shown]")) set(true);
    else if (e.target.closest("#bulk-runs [data-clear]")) { set(false); doc.querySelector("#runs-list [data-row]")?.focus({ preventScroll: true }) }
  });
  doc.addEventListener("htmx:after:swap", e => {
    show();
    if (e.detail.ctx?.target !== dialog && !dialog.contains(e.target)) return;
    if (!dialog.open) dialog.showModal();
    (dialog.querySelector("[aria-invalid=true]") ?? dialog.querySelector("[autofocus]"))?.focus();
  });
  dialog.addEventListener("close", () => { dialog.replaceChildren(); bar.querySelector("[data-key]:not(:disabled)")?.focus({ preventScroll: true }) });
  show();
})();
