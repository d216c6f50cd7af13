"""The documentation site, built as `make docs` builds it."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.limits import PATIENCE_S

pytest.importorskip("mkdocs", reason="mkdocs is not installed; `make docs` installs it")

ROOT = Path(__file__).parents[1]
PUBLIC = re.findall(r'^    "(\w+)": "nas', (ROOT / "nas" / "__init__.py").read_text(), re.MULTILINE)


class _Requested(HTMLParser):
    """Addresses that a page loads by itself."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        loads = tag in ("script", "img", "iframe") or (
            tag == "link" and attributes.get("rel") in ("stylesheet", "preconnect")
        )
        address = attributes.get("src") or attributes.get("href")
        if loads and address:
            self.addresses.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; with `--strict` a link or an anchor that leads nowhere ends the build."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    sources = (path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md"))
    # A README is the page of its folder.
    names = (path.with_name("index.md") if path.name == "README.md" else path for path in sources)
    pages = {path.with_suffix(".html") for path in names}
    built = {path.relative_to(site) for path in site.rglob("*.html")}
    assert pages | {Path("index.html"), Path("contributing.html")} <= built


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_entry(name: str, site: Path) -> None:
    assert re.search(rf'id="nas\.[\w.]+\.{name}"', (site / "api" / "nas.html").read_text())


def test_links_to_files_of_the_repository_lead_to_pages(site: Path) -> None:
    html = (site / "index.html").read_text()
    assert 'href="protocol.html"' in html
    assert 'href="source/nas/config.py.html"' in html
    assert "max_train_images" in (site / "source" / "nas" / "config.py.html").read_text()


def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = _Requested(page.read_text()).addresses
        assert not [address for address in loaded if "//" in address], page


def test_fields_have_plain_types(site: Path) -> None:
    html = (site / "api" / "nas.html").read_text()
    assert "target_latency_ms" in html
    assert "Annotated" not in html
