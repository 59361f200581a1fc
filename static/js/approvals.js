/* The approvals pages on top of plain forms. [name=confirm] buttons open their dialog instead of loading it; what is typed as a
   reason stands in every reason field; #approval-status[data-closed] and the end of the countdown lock the form, typed text kept;
   .det[data-long]: Approve waits until [data-args-end] was in view. */
(() => {
  "use strict";
  const doc = document;
  const all = (q, from = doc) => [...from.querySelectorAll(q)];
  const det = () => doc.getElementById("approval-detail");
  const dialogFor = verdict => doc.getElementById(`confirm-${verdict}`);

  function openStep(button) {
    const dialog = dialogFor(button.value);
    if (button.ariaDisabled === "true") {
      doc.getElementById("announce").textContent = doc.getElementById("unread").textContent;
      all(".args")[0].focus();
      return;
    }
    if (!dialog || dialog.open) return;
    button.focus({ preventScroll: true }); // a key may have opened it: focus comes back here
    dialog.showModal();
    const field = dialog.querySelector("textarea");
    if (field.required && !field.value) field.focus();
  }

  /* Somebody else decided, or time ran out: nothing can be sent any more, and nothing that was typed is lost. */
  function lock(words) {
    const form = doc.getElementById("decision");
    if (!form || "locked" in form.dataset) return;
    form.dataset.locked = "";
    for (const box of [form, ...all("dialog.decide")]) {
      for (const button of all("button:not([data-close])", box)) button.disabled = true;
      for (const field of all("textarea", box)) field.readOnly = true;
    }
    for (const note of all("[data-lock-note]")) { note.textContent = words; note.hidden = false }
  }
  function look() {
    const status = doc.getElementById("approval-status");
    if (status?.dataset.closed) lock(status.querySelector("p").textContent);
  }

  function watchEnd(section) {
    const end = section.querySelector("[data-args-end]"), button = section.querySelector("[name=confirm][value=approve]");
    if (!("long" in section.dataset) || !end || !button) return;
    const note = doc.getElementById("unread");
    button.ariaDisabled = "true"; note.hidden = false;
    const watcher = new IntersectionObserver(seen => {
      if (!seen.some(entry => entry.isIntersecting)) return;
      watcher.disconnect();
      button.ariaDisabled = null; note.hidden = true;
    });
    watcher.observe(end);
  }

  /* A page, or a detail that a refused decision has put in place of the old one. */
  function ready() {
    const section = det();
    if (!section || section.dataset.ready) return;
    section.dataset.ready = "1";
    watchEnd(section);
    look();
    const asked = section.querySelector("dialog[open]");
    if (asked) { asked.close(); asked.showModal(); asked.querySelector("[aria-invalid]")?.focus() }
    else section.querySelector("#notice")?.focus();
  }

  function passing(toast) {
    let timer;
    const start = () => { timer = setTimeout(() => toast.remove(), 5000) }, stop = () => clearTimeout(timer);
    for (const name of ["pointerenter", "focusin"]) toast.addEventListener(name, stop);
    for (const name of ["pointerleave", "focusout"]) toast.addEventListener(name, start);
    start();
    const url = new URL(location.href);
    url.searchParams.delete("decided");
    history.replaceState(history.state, "", url);
  }

  doc.addEventListener("click", e => {
    const button = e.target.closest?.("#decision [name=confirm]");
    if (button) { e.preventDefault(); openStep(button) }
  });
  doc.addEventListener("input", e => {
    if (e.target.name !== "reason" || !det()?.contains(e.target)) return;
    for (const field of all("textarea[name=reason]", det())) if (field !== e.target) field.value = e.target.value;
  });
  doc.addEventListener("sb:expired", () => { if (det()?.querySelector(".own[data-expired]")) lock("The time to decide is over.") });
  // The page itself says why a decision was refused: no second message.
  doc.addEventListener("htmx:response:error", e => {
    if (e.target.closest?.("dialog.decide") && e.detail.ctx.response.status < 500) e.stopPropagation();
  }, true);
  doc.addEventListener("htmx:after:swap", () => { ready(); look() });
  all(".toasts.decided .toast").forEach(passing);
  ready();
})();
