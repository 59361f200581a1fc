"""Contrast is computed from the stylesheet, so that a colour that is too faint cannot get in."""

import re
from pathlib import Path

import pytest

from console.status import KINDS, TONES

STATIC = Path(__file__).resolve().parent.parent.parent / "static"
TOKEN = re.compile(r"--([\w-]+): light-dark\((#[0-9a-f]{3,6}), (#[0-9a-f]{3,6})\);")
THEMES = {"light": 0, "dark": 1}


def tokens(name: str) -> dict[str, tuple[str, str]]:
    return {key: (light, dark) for key, light, dark in TOKEN.findall((STATIC / name).read_text())}


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    channels = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(front: str, back: str) -> float:
    darker, lighter = sorted((luminance(front), luminance(back)))
    return (lighter + 0.05) / (darker + 0.05)


COLOURS = tokens("signalbox.css")
TEXT = [(front, back) for front in ("text", "text-2", "text-3") for back in ("canvas", "surface", "sunken", "hover")]
TEXT += [("link", back) for back in ("canvas", "surface", "sunken", "selected")]
TEXT += [("text", "selected"), ("text-2", "selected"), ("text-3", "selected"), ("on-ink", "ink"), ("on-ink", "ink-hover")]
TEXT += [(tone, back) for tone in TONES for back in (f"{tone}-bg", "surface", "canvas", "sunken")]
TEXT += [("surface", "fail"), ("fail", "del-bg"), ("ok", "add-bg")]
EDGES = [("control", "surface"), ("control", "canvas"), ("focus", "surface"), ("focus", "canvas"), ("focus", "selected")]
EDGES += [(f"{tone}-solid", "surface") for tone in TONES]
EDGES += [(f"k-{kind}", "surface") for kind in ("model", "read", "write", "policy")]
EDGES += [(f"c{number}", "surface") for number in range(1, 7)]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("front", "back"), TEXT)
def test_text_is_readable_on_what_it_lies_on(theme: str, front: str, back: str) -> None:
    at = THEMES[theme]

    assert contrast(COLOURS[front][at], COLOURS[back][at]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("front", "back"), EDGES)
def test_edges_bars_and_icons_can_be_seen(theme: str, front: str, back: str) -> None:
    at = THEMES[theme]

    assert contrast(COLOURS[front][at], COLOURS[back][at]) >= 3.0


def test_every_tone_has_text_background_and_solid_in_both_themes() -> None:
    assert {f"{tone}{part}" for tone in TONES for part in ("", "-bg", "-solid")} <= COLOURS.keys()


def test_every_tone_that_a_state_uses_has_its_classes() -> None:
    css = (STATIC / "signalbox.css").read_text()
    used = {look.tone for looks in KINDS.values() for look in looks.values()}

    assert used <= set(TONES)
    assert all(f".s-{tone} {{" in css and f".t-{tone} {{" in css for tone in used)


def test_every_token_that_is_used_is_defined() -> None:
    css = (STATIC / "signalbox.css").read_text()
    defined = set(re.findall(r"(--[\w-]+):", css))
    scripts = "".join(path.read_text() for path in (STATIC / "js").glob("*.js"))

    assert set(re.findall(r"var\((--[\w-]+)", css)) <= defined
    assert set(re.findall(r'colour\("(--[\w-]+)"\)', scripts)) <= defined


def test_the_admin_has_the_values_of_the_console() -> None:
    admin = {name.removeprefix("sb-"): value for name, value in tokens("admin-tokens.css").items()}

    assert admin
    assert admin == {name: COLOURS[name] for name in admin}
