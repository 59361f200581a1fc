"""Template tags: how a value of the runtime is written on a page. Values in, autoescaped text out; nothing here asks
the database, and nothing marks foreign text as safe."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe

from console import preferences
from console.status import look

register = template.Library()

NOTHING = "–"
# Characters without a glyph of their own that Unicode does not count as format characters: fillers, joiners, selectors.
INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code) for span in (range(0xFE00, 0xFE0F), range(0xE0100, 0xE01F0)) for code in span
}
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
PLAIN_CONTROLS = frozenset("\n\t")
JSON_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*|true|false|null|NaN|-?Infinity)')


@register.simple_tag
def icon(name: str, size: str = "") -> SafeString:
    """A symbol of the sprite; decoration only, so the word beside it carries the meaning. `size`: "" 16 px, "s" 14 px."""
    href = f"{static('icons/sprite.svg')}#i-{name}"
    return format_html('<svg class="i {}" aria-hidden="true"><use href="{}"/></svg>', size, href)


@register.inclusion_tag("components/status.html")
def status(kind: str, state: object, size: str = "", note: str = "") -> dict[str, object]:
    """The status pill. `kind` of console.status.KINDS; `size`: "" or "lg"; `note` is put after the label."""
    return {"look": look(kind, state), "size": size, "note": note}


@register.filter
def tone(state: object, kind: str = "run") -> str:
    """The tone of a state, for `class="t-{{ run.state|tone }}"`."""
    return look(kind, state).tone


@register.filter
def label(state: object, kind: str = "run") -> str:
    return look(kind, state).label


@register.inclusion_tag("components/gauge.html")
def gauge(
    name: str,
    used: float | Decimal | None,
    limit: float | Decimal | None,
    used_text: str = "",
    limit_text: str = "",
    stopped: str = "",
    raised: str = "",
) -> dict[str, object]:
    """A budget: grey below 80%, amber from 80, red with "Used up" at 100, or "Stopped" where it ended the run. No limit: only the figure.

    `used` and `limit` are in one unit of any kind; the texts are how people read them. `stopped` says how it ended the run, `raised`
    what it was before.
    """
    share = float(used or 0) / float(limit) * 100 if limit else 0.0
    level = "f" if share >= 100 or stopped else "w" if share >= 80 else ""
    return {
        "name": name,
        "used": used_text or used or 0,
        "limit": limit_text or limit,
        "percent": int(share),
        "width": f"{min(max(share, 0.0), 100.0):.2f}%",
        "level": level,
        "stopped": stopped,
        "raised": raised,
    }


@register.filter
def money(value: object) -> str:
    """US dollars (a number or a decimal string): cents from 10 cents up, more decimals below, so that no cost reads as 0."""
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return NOTHING
    if not amount.is_finite():
        return NOTHING
    size = abs(amount)
    places = 2 if size >= Decimal("0.1") or not size else 3 if size >= Decimal("0.001") else 6
    return f"{'-' if amount < 0 else ''}${size:,.{places}f}"


@register.filter
def micros(value: object) -> str:
    """Micro-dollars (integers, as budgets are kept) as money."""
    return NOTHING if value is None else money(Decimal(str(value)) / 1_000_000)


@register.filter
def duration(value: dt.timedelta | float | Decimal | None) -> str:
    """Seconds or a timedelta: 2ms, 6.1s, 41s, 3m 12s, 1h 04m, 2d 03h. Decimals only under 10 s."""
    if value is None or value == "":
        return NOTHING
    seconds = max(value.total_seconds() if isinstance(value, dt.timedelta) else float(value), 0.0)
    if seconds < 0.9995:
        return f"{round(seconds * 1000)}ms" if seconds else "0s"
    if round(seconds, 1) < 10:
        return f"{seconds:.1f}s"
    return long_duration(round(seconds))


def long_duration(whole: int) -> str:
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02d}h"
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {seconds:02d}s" if minutes else f"{seconds}s"


@register.filter
def milliseconds(value: float | None) -> str:
    return NOTHING if value is None else duration(value / 1000)


@register.filter(name="bytes")
def byte_count(value: int | None) -> str:
    """Bytes in powers of 1024: 512 B, 8.1 KB, 1.2 MB."""
    if value is None:
        return NOTHING
    size = float(value)
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{int(size)} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


@register.filter
def compact(value: float | None) -> str:
    """A count for a small place: 940, 41.2k, 1.3M."""
    if value is None:
        return NOTHING
    for limit, divisor, unit in ((1_000, 1, ""), (1_000_000, 1_000, "k"), (1_000_000_000, 1_000_000, "M")):
        if abs(value) < limit:
            return f"{value / divisor:.1f}".removesuffix(".0") + unit
    return f"{value / 1_000_000_000:.1f}G"


def is_hidden(character: str) -> bool:
    if character in PLAIN_CONTROLS:
        return False
    return character in INVISIBLE or unicodedata.category(character) in HIDDEN_CATEGORIES


@register.filter
def plain(value: object) -> str:
    """For places that take no markup, such as the window's title: what cannot be seen is replaced."""
    return "".join("\N{REPLACEMENT CHARACTER}" if is_hidden(character) else character for character in str(value))


@register.filter
def visible(value: object) -> SafeString:
    """Text that an agent or a stranger wrote, escaped, with every bidi, zero-width and control character spelt out.

    A reader sees what is there: a right-to-left override becomes the marked word U+202E and turns nothing round.
    """
    out: list[str] = []
    plain: list[str] = []
    for character in "" if value is None else str(value):
        if not is_hidden(character):
            plain.append(character)
            continue
        out.append(conditional_escape("".join(plain)))
        plain.clear()
        name = unicodedata.name(character, "control character").lower()
        out.append(format_html('<span class="inv" title="{}">U+{}</span>', name, f"{ord(character):04X}"))
    out.append(conditional_escape("".join(plain)))
    return mark_safe("".join(out))  # every part above is escaped


@register.filter
def json_tokens(value: object, most: int = 0) -> SafeString:
    """A JSON value, indented and coloured, for `<pre class="code">`. `most` characters are shown (0: all)."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        return visible("(nested too deeply to show)")
    shown = text[:most] if most else text
    out: list[str] = []
    end = 0
    for token in JSON_TOKEN.finditer(shown):
        out.append(visible(shown[end : token.start()]))
        out.append(coloured(token))
        end = token.end()
    out.append(visible(shown[end:]))
    if len(shown) < len(text):
        rest = byte_count(len(text.encode(errors="replace")))
        out.append(format_html('<span class="muted">\n… cut here, {} in all</span>', rest))
    return mark_safe("".join(out))  # every part above is escaped


def coloured(token: re.Match[str]) -> SafeString:
    string, colon, literal = token.groups()
    if literal:
        return format_html('<span class="nu">{}</span>', literal)
    css = "p" if colon else "st"
    return format_html('<span class="{}">{}</span>{}', css, visible(string), colon or "")


@register.inclusion_tag("components/time.html")
def when(value: dt.datetime | None, style: str = "relative") -> dict[str, Any]:
    """A moment in the reader's zone; where only the browser knows that, in UTC, and the browser rewrites it.

    `style`: relative, absolute or date.
    """
    if value is None:
        return {"at": None, "nothing": NOTHING}
    at = preferences.in_zone(value)
    same_day = at.date() == preferences.in_zone(timezone.now()).date()
    text = clock(at, "%H:%M:%S") if same_day and style != "date" else f"{at.day} {at:%b %Y} {clock(at, '%H:%M')}"
    mark = " UTC" if at.tzinfo is dt.UTC else ""
    return {"at": iso(value), "text": text + mark, "style": style}


def clock(at: dt.datetime, written: str) -> str:
    twelve = preferences.shown().clock == "12"
    return f"{at:{written.replace('%H', '%I')}} {'pm' if at.hour > 11 else 'am'}" if twelve else f"{at:{written}}"


@register.filter
def left(value: dt.datetime | None) -> str:
    """The time left until a moment, in the words that app.js goes on with: 09:41, 59 min, 3 h 05, 2 d 4 h, Expired."""
    if value is None:
        return NOTHING
    whole = math.ceil((value - timezone.now()).total_seconds())
    minutes = whole // 60
    if whole <= 0:
        return "Expired"
    if whole < 600:
        return f"{minutes:02d}:{whole % 60:02d}"
    if minutes < 1440:
        return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d}"
    return f"{minutes // 1440} d {minutes // 60 % 24} h"


@register.filter
def iso(value: dt.datetime | None) -> str:
    """RFC 3339 in UTC, for data attributes."""
    return value.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if value else ""


@register.filter
def short_id(value: object) -> str:
    """An id that fits a line: `agt_01JT8Q4ZKD`, or the first 8 characters of a bare one. The whole goes into copy buttons."""
    prefix, mark, rest = str(value).partition("_")
    return f"{prefix}_{rest[:10]}" if mark else prefix[:8]


@register.filter
def run_of(value: object) -> str:
    """The run in the id of a call: `agt_….2.1` -> `agt_…`."""
    return str(value).partition(".")[0]
