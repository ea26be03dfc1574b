"""The site is built without a warning, and a browser that shows it asks no other host for anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.site_hosts import elsewhere, in_page, in_script, in_style
from tests.unit.test_docs import PAGES

ROOT = Path(__file__).parents[2]
LIMIT_S = 120
NOT_IN_IT = {"README.md"}  # of the repository; the site has a first page of its own


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "--fail-on-warning", "--keep-going", "-c", "docs"]
    done = subprocess.run(
        [*build, "-d", folder / "doctrees", ".", folder / "html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_in_it(site: Path) -> None:
    """Under the path that it has in the repository."""
    pages = {str(page.relative_to(ROOT)) for page in PAGES} - NOT_IN_IT
    assert {page for page in pages if not (site / page).with_suffix(".html").exists()} == set()
    assert "docs/index.html" in (site / "index.html").read_text()


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    """No fonts, scripts, styles or pictures."""
    assert list(elsewhere(site)) == []
    assert len(list(site.rglob("*.html"))) > len(PAGES)


@pytest.mark.parametrize(
    "planted",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<img src="HTTPS://img.example/badge.svg">',
        '<p style="background: url(https://img.example/a.png)"></p>',
        "<style>@import 'https://fonts.example/css';</style>",
        "<script>fetch('https://api.example/stars')</script>",
    ],
)
def test_what_is_loaded_from_elsewhere_is_found(planted: str) -> None:
    """In attributes, in styles and in scripts."""
    assert len(in_page(f"<html><body>{planted}</body></html>")) == 1


def test_links_and_names_are_no_loads() -> None:
    """A reader may follow a link; a comment or the name of an XML language is not fetched."""
    assert (
        in_page('<a href="https://docs.example/">AWS</a><img src="../a.png"><svg xmlns="http://www.w3.org/2000/svg">')
        == []
    )
    assert in_script("/* https://a.example */\n// 'https://b.example'\nf('http://www.w3.org/2000/svg')") == []
    assert in_style("/* url(https://a.example/b) */ a { background: url('data:image/png;base64,AA') }") == []
