/* The permission matrix as a grid: one stop of the Tab key, arrows move, Enter opens the form beside it, Esc comes back to the cell.
   Without this every cell is a plain link. */
(() => {
  "use strict";
  const grid = document.querySelector("[data-grid]"), side = document.getElementById("cell-form");
  if (!grid) return;
  const rows = [...grid.tBodies[0].rows].map(row => [...row.querySelectorAll("a")]);
  let at = [0, 1];
  for (const [y, row] of rows.entries()) for (const [x, link] of row.entries()) if (link.closest("[aria-selected]")) at = [y, x];
  function place(y, x) {
    for (const link of rows.flat()) link.tabIndex = -1;
    at = [Math.max(0, Math.min(y, rows.length - 1)), Math.max(0, Math.min(x, rows[0].length - 1))];
    rows[at[0]][at[1]].tabIndex = 0;
    return rows[at[0]][at[1]];
  }
  const last = () => rows[0].length - 1;
  const moves = { ArrowUp: ([y, x]) => [y - 1, x], ArrowDown: ([y, x]) => [y + 1, x], ArrowLeft: ([y, x]) => [y, x - 1], ArrowRight: ([y, x]) => [y, x + 1], Home: ([y]) => [y, 0], End: ([y]) => [y, last()] };
  grid.addEventListener("keydown", e => {
    const move = moves[e.key];
    if (!move || e.altKey || e.metaKey) return;
    e.preventDefault(); e.stopPropagation();
    if (e.ctrlKey) { if (e.key === "Home") place(0, 0).focus(); else if (e.key === "End") place(rows.length - 1, last()).focus(); return }
    place(...move(at)).focus();
  });
  grid.addEventListener("focusin", e => {
    for (const [y, row] of rows.entries()) { const x = row.indexOf(e.target); if (x >= 0) place(y, x) }
  });
  document.addEventListener("htmx:after:swap", e => {
    if (e.target !== side && e.detail?.ctx?.target !== side) return;
    for (const cell of grid.querySelectorAll("td[aria-selected]")) cell.removeAttribute("aria-selected");
    rows[at[0]][at[1]].closest("td")?.setAttribute("aria-selected", "true");
    side.querySelector("#cell-title")?.focus();
  });
  side.addEventListener("keydown", e => { if (e.key === "Escape") { e.preventDefault(); rows[at[0]][at[1]].focus() } });
  place(...at);
})();
