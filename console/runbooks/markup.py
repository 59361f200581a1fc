"""Markdown of people to HTML that is safe on a page of ours. Pure.

Raw HTML is text, pictures are words (one from elsewhere would tell its host who reads), links lead to http and https alone and show
where. What is left is held against a list of tags once more, in case the first step was wrong.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import nh3
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

MAX_CHARS = 64 * 1024
SCHEMES = {"http", "https"}
TAGS = {
    "p", "ul", "ol", "li", "strong", "em", "code", "pre", "blockquote", "br", "hr", "h3", "h4", "a", "span",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES: dict[str, set[str]] = {"*": set(), "a": {"href"}, "ol": {"start"}}  # "*": none by default, such as title


class Renderer(RendererHTML):
    def image(self, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
        words = tokens[at].content
        return escape(f"[picture: {words}]" if words else "[picture]")

    def link_close(self, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
        """The host after the words, unless they say it."""
        opening = next(token for token in reversed(tokens[:at]) if token.type == "link_open" and token.level == tokens[at].level)
        words = "".join(token.content for token in tokens[tokens.index(opening) : at])
        host = urlsplit(str(opening.attrs.get("href", ""))).hostname or ""
        return "</a>" + (f' <span class="host">({escape(host)})</span>' if host not in words else "")


def leads_out(url: str) -> bool:
    """Whether a link may lead there: an absolute http or https address."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return False
    return parts.scheme.lower() in SCHEMES and bool(parts.hostname)


def parser() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False}).enable("table")
    made.validateLink = leads_out  # type: ignore[method-assign]
    return made


MARKDOWN = parser()
RENDERER = Renderer(MARKDOWN)


def parse(source: str) -> list[Token]:
    return MARKDOWN.parse(source)


def html(tokens: Sequence[Token]) -> SafeString:
    """Of block tokens of `parse`."""
    return cleaned(RENDERER.render(tokens, MARKDOWN.options, {}))


def inline(tokens: Sequence[Token]) -> SafeString:
    """Of the children of one inline token."""
    return cleaned(RENDERER.renderInline(tokens, MARKDOWN.options, {}))


def cleaned(made: str) -> SafeString:
    return mark_safe(
        nh3.clean(
            made,
            tags=TAGS,
            attributes=ATTRIBUTES,
            allowed_classes={"span": {"host"}},
            url_schemes=SCHEMES,
            link_rel="noopener noreferrer nofollow",
            strip_comments=True,
        )
    )
