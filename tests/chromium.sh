#!/usr/bin/env bash
# A browser for tests/browser: Debian's where root may install it, else Playwright's own.
set -euo pipefail
if [ -x /usr/bin/chromium ]; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Chromium ..."
  export DEBIAN_FRONTEND=noninteractive
  if apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; then exit 0; fi
  echo "apt-get could not install it; trying Playwright's own." >&2
fi
exec .venv/bin/playwright install chromium
