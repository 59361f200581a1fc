// Blocking and tiny: the chosen theme is on <html> before the first paint. The key is the admin's own, so both agree.
try { const t = localStorage.getItem("theme"); if (t) document.documentElement.dataset.theme = t } catch { /* storage is off: follow the system */ }
