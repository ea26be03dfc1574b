"""Sphinx's settings for the site: `make docs` builds it from the same Markdown that a forge shows.

The source folder is the repository, so that links between pages, and to the README or an example, are the same in both
places. Pages hold nothing of Sphinx's: the navigation is here. Nothing in the built site is loaded from another host.

Sphinx, MyST and Furo rather than MkDocs: MkDocs 1 has no releases any more and its Material theme is in maintenance,
the successors are young, and this has been kept for years and builds offline.
"""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

NAVIGATION = {
    "Tutorial": ["tutorial"],
    "How-to guides": [
        "howto/from-lambda",
        "howto/from-kcl",
        "howto/from-localstack",
        "howto/kubernetes",
        "howto/dead-letters",
        "howto/ordering",
        "howto/exactly-once",
    ],
    "Operating": [
        "operations",
        "deployment",
        "moving",
        "console",
        "tracing",
    ],
    "Reference": [
        "reference/mappings",
        "reference/functions",
        "reference/settings",
        "reference/commands",
        "reference/metrics",
        "reference/errors",
        "configuration",
        "control-plane",
        "functions",
        "schedules",
        "sqs",
        "contract",
        "specification",
        "glossary",
    ],
    "Explanation": ["guarantees", "leases", "architecture", "performance"],
    "Project": ["/examples/README", "/CONTRIBUTING", "/CHANGELOG"],
}
"""The kinds of page, in the order of the side bar; a page that is in none of them fails the build."""

_HOME = "docs/index"

project = "esmd"
author = "the esmd authors"
version = release = version_of("esmd")
extensions = ["myst_parser"]

root_doc = _HOME
include_patterns = ["docs/*.md", "docs/*/*.md", "examples/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "**/node_modules"]

myst_heading_anchors = 4  # the anchors a forge makes of headings
suppress_warnings = ["misc.highlighting_failure"]  # `{…}` in JSON is for readers, not for its grammar
html_theme = "furo"
html_title = f"esmd {release}"
html_favicon = "../node/console/mark.svg"
html_static_path = ["site"]
html_extra_path = ["site/index.html"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"footer_icons": [], "source_edit_link": ""}
html_domain_indices = False
html_use_index = False
html_show_search_summary = False  # summaries are fetched, which a browser refuses to pages that were opened as files


def _with_navigation(_app: Sphinx, name: str, content: list[str]) -> None:
    """Append the navigation to the first page, where a forge's readers do not see it."""
    if name != _HOME:
        return
    for caption, pages in NAVIGATION.items():
        content[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect what this file adds."""
    app.connect("source-read", _with_navigation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
