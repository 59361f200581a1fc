from pathlib import Path

import pytest

from tests.template_lint import TEMPLATES, findings, lint


def test_no_template_of_ours_breaks_the_content_security_policy() -> None:
    assert lint(TEMPLATES) == []


@pytest.mark.parametrize(
    "source",
    [
        '<p style="width:40%">',
        "<style>p{}</style>",
        "<script>alert(1)</script>",
        '<script type="module">',
        '<button onclick="go()">',
        "<img src=x onerror=go()>",
        '<a href="#"onfocus="go()">',
        '<a {% if x %} onclick="{{ x }}"{% endif %}>',
        '<div hx-on:click="go()">',
        '<div hx-live="x">',
        "<div hx-vals='js:{a: 1}'>",
        '<input hx-trigger="keyup[key==1]">',
        '<a href="javascript:go()">',
        "{{ answer|safe }}",
        "{{ answer | safe }}",
        "{% autoescape off %}",
    ],
)
def test_each_forbidden_form_is_found(source: str) -> None:
    assert list(findings(source))


@pytest.mark.parametrize(
    "source",
    [
        '<script src="{% static "js/app.js" %}" defer></script>',
        '<div hx-get="/runs/" hx-trigger="every 5s" class="one">',
        "{# never use style= or |safe #}",
        "{% comment %}<script>x</script>{% endcomment %}",
        "<p>{{ text|visible }}</p>",
        '<td data-only="x" data-once>',
        "{% if only == one %}<td>{% endif %}",
    ],
)
def test_what_is_allowed_is_not_reported(source: str) -> None:
    assert list(findings(source)) == []


def test_a_finding_names_the_file_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("{# one\n#}\n<p>\n  <b style='x'>\n")

    assert lint(tmp_path) == [f"{tmp_path.name}/page.html:4: no style attribute: the policy drops it; use a class or an SVG attribute"]
