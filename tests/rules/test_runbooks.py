"""Runbooks as they are read and shown: steps, what they offer, and nothing that a browser would do by itself."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from console.runbooks import markup, reading
from console.runbooks.reading import Offer, Unreadable

FILES = sorted((Path(__file__).parents[2] / "docs" / "runbooks").glob("*.md"))
FIVE = {"tool-timeouts", "cost-per-run", "planner-loops", "duplicate-writes", "provider-degraded"}
STEP = "# T\n\n## S\n\n1. Do it.\n"
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](https://evil.example/pixel.png)",
    "![x][r]\n\n[r]: https://evil.example/p",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)",
    "[x](//evil.example)",
    "[x](file:///etc/passwd)",
    "<javascript:alert(1)>",
    "[x](&#106;avascript:alert(1))",
    "[x](java&#10;script:alert(1))",
    "<svg onload=alert(1)>",
    "<a href='https://e.example' onclick=alert(1)>x</a>",
    "`<script>`",
    "    <script>alert(1)</script>",
    "```html\n<script>alert(1)</script>\n```",
    "<!-- x --><style>*{}</style>",
    "<iframe src=https://evil.example>",
    "[x](https://e.example \"' onmouseover=alert(1) '\")",
    '<https://e.example/"onload=1>',
    "[![x](https://evil.example/p)](https://e.example)",
    "| a |\n|---|\n| <b onclick=x>y</b> |",
    "<base href=https://evil.example>",
    "[x]: <javascript:alert(1)>\n\n[x]",
)
ALLOWED = {"p", "ul", "ol", "li", "strong", "em", "code", "pre", "blockquote", "br", "hr", "h3", "h4", "a", "span",
           "table", "thead", "tbody", "tr", "th", "td"}  # fmt: skip


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.mission("P11.2")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_runbook_is_read_and_offers_what_can_be_done(path: Path) -> None:
    book = reading.read(path.read_text())
    assert {"Check", "Contain", "Repair", "Verify", "Afterwards"} <= {section.title for section in book.sections}
    assert all(step.words[-1] in ".?" for step in book.steps)
    assert [step.number for step in book.steps] == list(range(1, len(book.steps) + 1))


@pytest.mark.mission("P11.2")
def test_the_five_incidents_have_a_runbook_from_the_start() -> None:
    assert {path.stem for path in FILES} >= FIVE


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_hostile_becomes_more_than_words(hostile: str) -> None:
    book = reading.read(f"# {'T'}\n\n{hostile}\n\n## S\n\n1. Do it. {hostile}\n\n{hostile}\n")
    shown = str(book.lead) + "".join(str(part) if not isinstance(part, reading.Step) else str(part.more) for part in book.sections[0].parts)
    for tag, attributes in Elements(shown).found:
        assert tag in ALLOWED
        assert set(attributes) <= {"href", "rel", "class", "start"}
        if tag == "a":
            assert urlsplit(attributes["href"] or "").scheme in ("http", "https")
            assert attributes["rel"] == "noopener noreferrer nofollow"


def test_a_link_shows_where_it_leads() -> None:
    book = reading.read("# T\n\n[our bank](https://evil.example/x) <https://good.example/>\n\n## S\n\n1. Do it.\n")
    assert '>our bank</a> <span class="host">(evil.example)</span>' in book.lead
    assert book.lead.count("host") == 1


def test_a_picture_is_told_and_not_fetched() -> None:
    assert "[picture: the plan]" in markup.html(markup.parse("![the plan](https://evil.example/p.png)"))


@pytest.mark.parametrize(
    ("text", "words", "more"),
    [
        ("1. **Stop it.** Then look.", "Stop it.", "<p>Then look.</p>"),
        ("1. Stop it. Then look.", "Stop it.", "<p>Then look.</p>"),
        ("1. Stop `it` now. Then look.", "Stop it now. Then look.", ""),
        ("- Just this", "Just this", ""),
        ("1. One.\n\n   Two.\n   - a", "One.", "<p>Two.</p>\n<ul>\n<li>a</li>\n</ul>\n"),
        ("1. <b>x</b> & y", "<b>x</b> & y", ""),
    ],
)
def test_a_step_has_a_line_and_the_rest_of_it(text: str, words: str, more: str) -> None:
    step = reading.read(f"# T\n\n## S\n\n{text}\n").steps[0]
    assert (step.words, str(step.more)) == (words, more)


def test_an_action_is_taken_out_of_its_step() -> None:
    step = reading.read("# T\n\n## S\n\n1. **Stop.** Now.\n\n   `action: ask_people tool={tool} approvers=2`\n\n   After.\n").steps[0]
    assert step.offers == (Offer("ask_people", (("tool", "{tool}"), ("approvers", "2"))),)
    assert "action" not in step.more
    assert "After." in step.more
    assert step.offers[0].filled({"tool": "mail"}) == {"tool": "mail", "approvers": "2"}
    assert step.offers[0].filled({"agent": "a"}) is None


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "begins with its title"),
        ("## S\n\n1. x", "begins with its title"),
        ("# T\n\n1. x", "1 to 60 steps"),
        ("# T\n\n## S\n\nOnly words.", "1 to 60 steps"),
        ("# T\n\n## S\n\n" + "- x\n" * 61, "1 to 60 steps"),
        ("# T\n\n## S\n\n1.\n", "says nothing"),
        ("# T\n\n## S\n\n1. `action: go_read_only`", "says nothing"),
        (STEP + "\n   `action: format_disk`", "which nobody can do"),
        (STEP + "\n   `action:`", "which nobody can do"),
        (STEP + "\n   `action: deny_tool`", "deny_tool takes tool=…"),
        (STEP + "\n   `action: deny_tool tool={tool} tool=x`", "deny_tool takes tool=…"),
        (STEP + "\n   `action: deny_tool tool={user}`", "is a name, or one of"),
        (STEP + "\n   `action: deny_tool tool=<b>`", "is a name, or one of"),
        (STEP + "a\x00b", "hidden character U+0000"),
        (STEP + "a\u202eb", "Line 6 has the hidden character U+202E"),
        ("# T\n\n## S\n\n1. x\n" + "y" * 1_000_000, "at most 65536"),
    ],
)
def test_what_cannot_be_a_runbook_says_what_to_write(source: str, why: str) -> None:
    with pytest.raises(Unreadable) as caught:
        reading.read(source)
    assert why in str(caught.value)


@pytest.mark.parametrize("deep", ["> " * 3000 + "x", "*" * 20000, "[" * 20000, "`" * 30000 + "x", "![" * 10000])
def test_deep_and_long_text_is_read_in_good_time(deep: str) -> None:
    assert reading.read(f"{STEP}\n\n{deep}\n").steps
