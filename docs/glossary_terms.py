"""Gives a glossary term its meaning on hover where a lesson first uses it."""

import html
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

GLOSSARY = Path(__file__).resolve().parent.parent / "notebooks" / "GLOSSARY.md"
# Words of everyday language, too: explained only where the lesson links them.
EVERYDAY = set(
    """approximation bias block branch class clipping collapse confidence depth detach
    expectation feature filter fold frozen generator grid head hook hybrid
    key kernel label leakage mask mean momentum noise normal permute prediction
    probability process rank recurrence register relevance replication reshape
    resolution resume saturated schedule score seed sequence shape shuffle stage stem
    step stride temperature threshold training transform value variant view weight
    width""".split()
)


class Term(nodes.inline):
    """A word with its meaning."""


NO_PLACE = (nodes.title, nodes.literal, nodes.literal_block, nodes.reference, Term)
NO_PLACE += (nodes.math, nodes.math_block, nodes.raw, nodes.table, pending_xref)


@cache
def meanings() -> dict[str, str]:
    """Returns the meaning of each term; "A (B)" is a term by either name."""
    found = {}
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0] != "English" and not cells[0].startswith("-"):
            for name in re.split(r" \(|\)", cells[0]):
                if name:
                    found[name] = re.sub(r"[`*]", "", cells[2])
    return found


def look_up(word: str) -> str:
    """Returns the term that a word is, also in plural or at the start of a sentence."""
    for name in (word, word[0].lower() + word[1:]):
        for end in ("", "s", "es"):
            if name.endswith(end) and name.removesuffix(end) in meanings():
                return name.removesuffix(end)
    return ""


@cache
def pattern() -> re.Pattern[str]:
    """Matches what may be a term, the longest first."""
    words = sorted((t for t in meanings() if t not in EVERYDAY), key=len, reverse=True)
    one_of = "|".join(map(re.escape, words))
    return re.compile(rf"(?<![\w-])(?:{one_of})(?:e?s)?(?![\w-])", re.IGNORECASE)


def explain(word: str) -> Term:
    return Term("", word, meaning=meanings()[look_up(word)])


def explain_text(text: str, seen: set[str]) -> list[nodes.Node]:
    """Splits a text at the terms that were not seen before; empty if there are none."""
    pieces: list[nodes.Node] = []
    end = 0
    for match in pattern().finditer(text):
        term = look_up(match[0])
        if term and term not in seen:
            seen.add(term)
            pieces += [nodes.Text(text[end : match.start()]), explain(match[0])]
            end = match.end()
    return [*pieces, nodes.Text(text[end:])] if pieces else []


def is_plain(text: nodes.Text) -> bool:
    """Returns whether a text is in a sentence: not a title, link, code, or output."""
    place = text.parent
    while place is not None:
        if isinstance(place, NO_PLACE) or "cell_output" in place["classes"]:
            return False
        place = place.parent
    return True


def explain_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Explains each term of a lesson once; a link to the glossary becomes a term."""
    if not app.env.doc2path(app.env.docname).match("notebooks/*.ipynb"):
        return
    seen: set[str] = set()
    for node in list(doctree.findall()):
        if isinstance(node, pending_xref) and "GLOSSARY" in node["reftarget"]:
            term = look_up(node.astext())
            if term:
                seen.add(term)
                node.replace_self(explain(node.astext()))
        elif isinstance(node, nodes.Text) and is_plain(node):
            if pieces := explain_text(node.astext(), seen):
                node.parent.replace(node, pieces)


def visit_term(translator, node: Term) -> None:
    number = translator.terms = getattr(translator, "terms", 0) + 1
    translator.body.append(
        f'<span class="term" tabindex="0" aria-describedby="term-{number}">'
    )


def depart_term(translator, node: Term) -> None:
    meaning = html.escape(node["meaning"])
    translator.body.append(
        f'<span class="meaning" role="tooltip" id="term-{translator.terms}">{meaning}'
        "</span></span>"
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the terms with Sphinx."""
    app.add_node(Term, html=(visit_term, depart_term))
    app.connect("doctree-read", explain_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
