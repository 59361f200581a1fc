/* What tells a person that approvals wait, as they chose in Settings > Notices: the count in the title (live.js keeps it right after
   the first), and a desktop notice when one more waits while they look elsewhere. Contract: body[data-title-count], body[data-notices=URL of
   the approvals], the sidebar's [data-live-count=approvals]; on the settings page input[data-ask-notices] and #notices-state. */
(() => {
  const doc = document, { notices: url, titleCount } = doc.body.dataset;
  const shown = doc.querySelector(".side [data-live-count=approvals]");
  const here = "Notification" in window;
  let last = Number(shown?.textContent ?? 0);

  if (titleCount !== undefined && last && !/^\(\d+\) /.test(doc.title)) doc.title = `(${last}) ${doc.title}`;
  function look() {
    const now = Number(shown.textContent), more = now > last;
    last = now;
    if (!more || doc.hasFocus() || !here || Notification.permission !== "granted") return;
    const notice = new Notification(`${now} approval${now > 1 ? "s" : ""} wait${now > 1 ? "" : "s"}`, { body: "Signalbox", tag: "signalbox-approvals", icon: doc.querySelector("link[rel=icon]")?.href });
    notice.onclick = () => { window.focus(); location.assign(url) };
  }
  if (url && shown) new MutationObserver(look).observe(shown, { childList: true, characterData: true, subtree: true });

  const box = doc.querySelector("[data-ask-notices]"), state = doc.getElementById("notices-state");
  function say() {
    const words = {
      granted: "This browser shows them.",
      denied: "This browser refuses notices of this address, so none will appear here. Allow them in its settings for this site, then load this page again.",
      default: "This browser has not been asked yet. Tick the box again to be asked.",
    };
    state.textContent = !box.checked ? "" : here ? words[Notification.permission] : "This browser shows notices only of addresses with https.";
  }
  if (box && state) {
    box.addEventListener("change", async () => { if (box.checked && here && Notification.permission === "default") await Notification.requestPermission(); say() });
    say();
  }
})();
