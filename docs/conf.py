"""Sphinx configuration. `make docs` builds the pages into docs/_build/html; a warning is an error."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

import fewer

project = "fewer"
author = "The fewer developers"
project_copyright = "The fewer developers"
version = release = fewer.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
nitpicky = False

autosummary_generate = True
autodoc_typehints = "none"  # the numpydoc sections say it in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_validation_checks = set()

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pictures.css"]
html_title = f"fewer {version}"
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(
        f'<div style="overflow: auto hidden; margin: 1em 0">{convert(node.astext(), display="block")}</div>'
    )
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Formulae as MathML: browsers draw it themselves, so the pages need no network."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
