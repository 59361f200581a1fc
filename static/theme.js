// Blocking and tiny: the chosen theme is on <html> before the first paint. Who is signed in has it from the server; the copy kept here is
// for the sign-in page and the admin, whose own key it is. A zone that this browser does not know would stop every script: UTC instead.
{
  const d = document.documentElement.dataset;
  try { if (d.theme) localStorage.setItem("theme", d.theme); else { const t = localStorage.getItem("theme"); if (t) d.theme = t } } catch { /* storage is off: follow the system */ }
  try { if (d.zone && d.zone !== "local") Intl.DateTimeFormat("en-GB", { timeZone: d.zone }) } catch { d.zone = "UTC" }
}
