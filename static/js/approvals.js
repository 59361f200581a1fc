/* The approvals pages on top of plain forms. [name=confirm] buttons open their dialog instead of loading it; what is typed as a
   reason stands in every reason field; #approval-status[data-closed] and the end of the countdown lock the forms, typed text kept;
   .det[data-long]: Approve waits until [data-args-end] was in view. The edit form marks what is changed ([data-field] > [data-was]);
   #together counts the ticked rows of the list. */
(() => {
  "use strict";
  const doc = document;
  const all = (q, from = doc) => [...from.querySelectorAll(q)];
  const det = () => doc.getElementById("approval-detail");
  const dialogFor = verdict => doc.getElementById(`confirm-${verdict}`);
  const edits = () => doc.querySelector("form.edits");

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
    const field = all("textarea, input[type=password]", dialog).find(one => one.required && !one.value);
    if (field) field.focus();
  }

  /* Somebody else decided, or time ran out: nothing can be sent any more, and nothing that was typed is lost. */
  function lock(words) {
    const form = doc.getElementById("decision");
    if (!form || "locked" in form.dataset) return;
    form.dataset.locked = "";
    const fields = [...form.elements, ...all("dialog.decide :is(button, textarea, input), .glass button")];
    for (const one of fields) {
      if (one.matches("button:not([data-close])") || one.matches("select")) one.disabled = true;
      else if (one.matches("textarea, input")) one.readOnly = true;
    }
    for (const note of all("[data-lock-note]")) { note.textContent = words; note.hidden = false }
  }
  function look() {
    const status = doc.getElementById("approval-status");
    if (status?.dataset.closed) lock(status.querySelector("p").textContent);
  }

  function watchEnd(section) {
    const end = section.querySelector("[data-args-end]"), buttons = all("[name=confirm]:is([value=approve], [value=break])", section);
    if (!("long" in section.dataset) || !end || !buttons.length) return;
    const note = doc.getElementById("unread");
    const close = shut => { for (const button of buttons) button.ariaDisabled = shut ? "true" : null; if (note) note.hidden = !shut };
    close(true);
    const watcher = new IntersectionObserver(seen => {
      if (!seen.some(entry => entry.isIntersecting)) return;
      watcher.disconnect();
      close(false);
    });
    watcher.observe(end);
  }

  /* the edit form: which fields differ from what they showed first */
  const isChanged = field => field.tagName === "SELECT" ? all("option", field).some(one => one.selected !== one.defaultSelected) : field.value !== field.defaultValue;
  function compare() {
    const form = edits();
    if (!form) return;
    let many = 0;
    for (const row of all("[data-field]", det())) {
      const field = row.querySelector("[form=decision]"), changed = !!field && isChanged(field), was = row.querySelector("[data-was]");
      row.classList.toggle("moved", changed);
      was?.classList.toggle("struck", changed);
      many += changed;
    }
    doc.getElementById("edited-count").textContent = many ? `${many} edit${many > 1 ? "s" : ""}, not recorded yet` : "";
  }

  /* A page, or a detail that a refused decision has put in place of the old one. */
  function ready() {
    const section = det();
    if (!section || section.dataset.ready) return;
    section.dataset.ready = "1";
    watchEnd(section);
    look();
    for (const button of all("[data-reset]", section)) button.hidden = false;
    compare();
    const asked = section.querySelector("dialog[open]");
    if (asked) { asked.close(); asked.showModal(); asked.querySelector("[aria-invalid]")?.focus() }
    else (section.querySelector("#notice, [aria-invalid], #edit-errors") ?? (edits() && section.querySelector("[data-field] [form=decision]")))?.focus();
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

  /* the list: several at once */
  function together() {
    const form = doc.getElementById("together");
    if (!form) return;
    const boxes = all("#approval-list [form=together]"), many = boxes.filter(box => box.checked).length, button = form.querySelector("button");
    form.hidden = !boxes.length;
    button.disabled = many < 2;
    button.querySelector("span").textContent = many > 1 ? `Decide ${many} together` : "Decide together";
  }

  doc.addEventListener("click", e => {
    const button = e.target.closest?.(".dec-bar [name=confirm]");
    if (button) { e.preventDefault(); openStep(button) }
  });
  doc.addEventListener("keydown", e => {
    if ((e.ctrlKey || e.metaKey) && e.key === "Enter" && edits() && !doc.querySelector("dialog[open]")) { e.preventDefault(); edits().requestSubmit() }
  });
  doc.addEventListener("input", e => {
    if (!det()?.contains(e.target)) return;
    compare();
    if (e.target.name === "reason") for (const field of all("textarea[name=reason]", det())) if (field !== e.target) field.value = e.target.value;
  });
  doc.addEventListener("reset", () => setTimeout(compare));
  doc.addEventListener("change", e => { if (e.target.matches?.("[form=together]")) together() });
  doc.addEventListener("sb:expired", () => { if (det()?.querySelector(".own[data-expired]")) lock("The time to decide is over.") });
  // The page itself says why a decision was refused: no second message.
  doc.addEventListener("htmx:response:error", e => {
    if (e.target.closest?.("dialog.decide, form.edits") && e.detail.ctx.response.status < 500) e.stopPropagation();
  }, true);
  doc.addEventListener("htmx:after:swap", () => { ready(); look(); together() });
  all(".toasts.decided .toast").forEach(passing);
  ready();
  together();
})();
