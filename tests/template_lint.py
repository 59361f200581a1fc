"""What the Content-Security-Policy and the escaping rules forbid in templates: `python -m tests.template_lint`.

Prints `path:line: rule` for each finding and exits 1 if there is one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("no style attribute: the policy drops it; use a class or an SVG attribute", re.compile(r"\sstyle\s*=", re.I)),
    ("no style element: the policy drops it", re.compile(r"<style[\s>]", re.I)),
    ("no script without src: the policy drops it", re.compile(r"<script(?![^>]*\ssrc\s*=)[^>]*>", re.I)),
    ("no event attribute: the policy drops it", re.compile(r"[\s\"']on[a-z]+\s*=", re.I)),
    ("no hx-on: it needs eval", re.compile(r"\bhx-on\b", re.I)),
    ("no hx-live: it needs eval", re.compile(r"\bhx-live\b", re.I)),
    ("no js: in an htmx attribute: it needs eval", re.compile(r"\bhx-[\w:-]+\s*=\s*[\"']\s*(?:js|javascript):", re.I)),
    ("no filter in hx-trigger: it needs eval", re.compile(r"\bhx-trigger[\w:-]*\s*=\s*(?:\"[^\"]*\[|'[^']*\[)", re.I)),
    ("no javascript: address", re.compile(r"(?:href|action|src)\s*=\s*[\"']?\s*javascript:", re.I)),
)
# These look into the template tags; the rules above look at the markup between them.
TAG_RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("no |safe: text of agents and people is always escaped", re.compile(r"\|\s*safe(?:seq)?\b")),
    ("no autoescape off", re.compile(r"{%\s*autoescape\s+off")),
)
TAGS = re.compile(r"{%.*?%}|{{.*?}}", re.DOTALL)
COMMENTS = re.compile(r"{#.*?#}|{%\s*comment\b.*?%}.*?{%\s*endcomment\s*%}|<!--.*?-->", re.DOTALL)


def blank(match: re.Match[str]) -> str:
    """A comment without its text; the line numbers stay."""
    return "\n" * match[0].count("\n")


def findings(source: str) -> Iterator[tuple[int, str]]:
    """(line, rule) for each breach in one template's text."""
    template = COMMENTS.sub(blank, source)
    markup = TAGS.sub(blank, template)
    for text, rules in ((markup, RULES), (template, TAG_RULES)):
        for rule, pattern in rules:
            for match in pattern.finditer(text):
                yield text.count("\n", 0, match.start() + 1) + 1, rule


def lint(folder: Path) -> list[str]:
    """`path:line: rule`, sorted, for every .html under `folder`."""
    out: list[str] = []
    for path in sorted(folder.rglob("*.html")):
        for line, rule in sorted(findings(path.read_text())):
            out.append(f"{path.relative_to(folder.parent)}:{line}: {rule}")
    return out


def main() -> int:
    found = lint(TEMPLATES)
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
