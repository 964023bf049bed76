"""What the browser of a first visitor is told to load before Streamlit gets to ask for it.

Streamlit loads an element's script when it draws the first of them, and what that script needs
after it: on a slow line, seconds. The names of its files hold hashes, so they are looked up in the
list that it brings along; if that has changed, nothing is told, and the page loads as it did.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.logs import get_logger
from common.questions import Kind, Question

FEW_OPTIONS = 5  # are shown all at once
ELEMENTS = {
    Kind.LINE: "TextInput",
    Kind.AREA: "TextArea",
    Kind.WHOLE: "NumberInput",
    Kind.DECIMAL: "NumberInput",
    Kind.CHECKBOX: "Checkbox",
    Kind.CHOICE: "Selectbox",
    Kind.CHOICES: "Multiselect",
    Kind.DATE: "DateInput",
}
ALWAYS = ("Html", "BidiComponent")
# The first things that Streamlit asks its server for, once its scripts have run.
FIRST_QUESTIONS = ("./_stcore/health", "./_stcore/host-config")
# It would load its font of icons (0.4 MB) before all else; one that is drawn loads it anyway.
NO_ICON_FONT = """
    <script>
      {
        const load = document.fonts.load.bind(document.fonts)
        document.fonts.load = (font, text) =>
          font.includes("Material Symbols") ? Promise.resolve([]) : load(font, text)
      }
    </script>"""

# Streamlit names it first, but no text is drawn before all of its scripts are there.
FONT = re.compile(r"<link\s[^>]*as=\"font\"[^>]*>")

log = get_logger("page")


def is_radio(question: Question) -> bool:
    """Whether a choice is shown with all its options at once."""
    return question.is_required and len(question.options) <= FEW_OPTIONS


def sooner(page: str, asked: Sequence[Question], static: Path) -> str:
    """Return Streamlit's HTML with a head that loads what a form needs, in the order of need.

    `static` is Streamlit's folder of files.
    """
    font = FONT.search(page)
    fetched = [
        f'<link rel="preload" as="fetch" crossorigin href="{url}">' for url in FIRST_QUESTIONS
    ]
    modules = [
        f'<link rel="modulepreload" fetchpriority="low" crossorigin href="./{script}">'
        for script in scripts(asked, static)
    ]
    links = [*fetched, *([font[0]] if font else []), *modules]
    added = NO_ICON_FONT + "".join(f"\n    {link}" for link in links)
    return FONT.sub("", page).replace("</head>", f"{added}\n  </head>", 1)


def scripts(asked: Sequence[Question], static: Path) -> list[str]:
    """Name the scripts of the elements that a form is drawn with, those left out that come first.

    None of them when Streamlit's list is not as we know it.
    """
    elements = {*ALWAYS, *map(_element, asked)}
    try:
        manifest = json.loads((static / "manifest.json").read_text())
        entries = [name for name in manifest if Path(name).stem in elements]
        first = set(_with_imports(manifest, ["index.html"]))
        wanted = [name for name in _with_imports(manifest, entries) if name not in first]
        return [manifest[name]["file"] for name in wanted]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        log.warning("the form loads slower: Streamlit's list of files is another", cause=str(error))
        return []


def _element(question: Question) -> str:
    is_choice = question.kind is Kind.CHOICE
    return "Radio" if is_choice and is_radio(question) else ELEMENTS[question.kind]


def _with_imports(manifest: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Name these files, and all that they import."""
    found: dict[str, None] = {}
    rest = list(names)
    while rest:
        name = rest.pop()
        if name not in found:
            found[name] = None
            rest += manifest[name].get("imports", ())
    return list(found)
