/* Passkeys. A form with data-passkey="get" or "create" has a hidden field named passkey, a [data-passkey-go] button that is
   hidden where the browser knows none of this, and a [data-passkey-error] for what went wrong. What to ask the browser for is
   in data-options, or is fetched from data-options-url when the button is pressed. */
(() => {
  "use strict";
  const numbers = /^[\d.]+$|:/.test(location.hostname);  // passkeys are made for names
  const known = !numbers && window.PublicKeyCredential?.parseRequestOptionsFromJSON;

  async function ask(form) {
    const said = form.dataset.options ?? await (await fetch(form.dataset.optionsUrl, { headers: { Accept: "application/json" } })).text();
    const options = JSON.parse(said);
    const made = form.dataset.passkey === "create"
      ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
      : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
    form.elements.passkey.value = JSON.stringify(made.toJSON());
    form.submit();
  }

  for (const form of document.querySelectorAll("form[data-passkey]")) {
    const button = form.querySelector("[data-passkey-go]"), error = form.querySelector("[data-passkey-error]");
    if (!known) {
      error.hidden = form.dataset.passkey !== "create";
      error.textContent = "Passkeys need a recent browser, and an address with https or the name localhost.";
      continue;
    }
    button.hidden = false;
    form.addEventListener("submit", event => {
      event.preventDefault();
      error.hidden = true; button.disabled = true;
      ask(form).catch(() => { error.textContent = "No passkey was used. Try again, or take another way."; error.hidden = false })
        .finally(() => { button.disabled = false });
    });
  }
})();
