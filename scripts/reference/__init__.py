"""Parts of the reference that are read from the code; `scripts/generate_docs.py` writes them."""

HEAD = "<!-- Written by scripts/generate_docs.py. Do not edit: change the code, then run it. -->\n"


def cell(text: str) -> str:
    """In a table of Markdown."""
    return " ".join(text.split()).replace("|", "\\|")
