"""The pages of the documentation site that are not in `docs/`; hooks for mkdocs.

The README is the front page, CONTRIBUTING is a page, and so is every file of the repository that a page
links to. Links between files become links between pages, so the same text serves both.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository, and their pages."""

_LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")
"""The target of a link to a file; one to a site has a colon."""


def page_of(path: str) -> str | None:
    """The page of a file of the repository, as a path within `docs/`; None if there is no such file."""
    if path in PAGES:
        return PAGES[path]
    if not (ROOT / path).is_file():
        return None
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.md"


def file_of(page: str) -> str:
    """The file of the repository that a page is made from."""
    return next((path for path, its_page in PAGES.items() if its_page == page), f"docs/{page}")


def relink(markdown: str, page: str) -> str:
    """Turns links between files into links between pages; mkdocs names those that lead nowhere."""

    def replace(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file_of(page)), link["target"]))
        found = page_of(target)
        if found is None:
            return link[0]
        return posixpath.relpath(found, posixpath.dirname(page) or ".") + (link["anchor"] or "")

    return _LINK.sub(replace, markdown)


def linked_sources(markdown: str, page: str) -> Iterator[str]:
    """Files of the repository that a page links to and that are no documentation."""
    for link in _LINK.finditer(markdown):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file_of(page)), link["target"]))
        if (page_of(path) or "").startswith("source/"):
            yield path


def source_page(path: str) -> str:
    """A file of the repository as a page."""
    language = {".py": "python", ".yaml": "yaml"}.get(Path(path).suffix, "text")
    return f"# `{path}`\n\n````{language}\n{(ROOT / path).read_text(encoding='utf-8')}\n````\n"


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are not in `docs/`."""
    for path, page in PAGES.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    pages = [file for file in files if file.is_documentation_page()]
    sources = {path for file in pages for path in linked_sources(file.content_string, file.src_uri)}
    for path in sorted(sources):
        files.append(File.generated(config, f"source/{path}.md", content=source_page(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Makes the links of a page lead to pages."""
    source = page.file.src_uri
    return markdown if source.startswith("source/") else relink(markdown, source)
