"""Configuration of the documentation: ``sphinx-build -n -W docs docs/_build/html``."""

import json
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from lazyccd.batch.recipe.schema import json_schema

ROOT = Path(__file__).parents[1]

project = "lazyccd"
author = "the lazyccd developers"
copyright = "the lazyccd developers"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_click",
]
exclude_patterns = ["_build", "api/generated/README*"]
templates_path = ["_templates"]
nitpicky = True
# a name in single backticks is a cross-reference, as in the docstrings of NumPy, astropy and xarray
default_role = "py:obj"
# "--hdu" stays as it is typed
smartquotes = False
add_module_names = False

# API reference
autosummary_generate = True
autodoc_typehints_format = "short"
# NumPy's alias is a union of half a dozen private types
autodoc_type_aliases = {"npt.DTypeLike": "npt.DTypeLike", "DTypeLike": "npt.DTypeLike"}
autodoc_member_order = "bysource"
# types stand in the signature; beyond this many columns each parameter has a line of its own
python_maximum_signature_line_length = 88
# members have pages or sections of their own, so numpydoc need not list them once more
numpydoc_show_class_members = False

# Markdown and notebooks
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

html_theme = "pydata_sphinx_theme"
html_title = "lazyccd"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}

nitpick_ignore_regex = [
    # names of Python and of other projects: their inventories would have to be fetched from the network
    (r"py:.*", r"(numpy|np|npt|xarray|xr|dask|da|astropy|u|fits|scipy|click|matplotlib|ccdproc|astroscrappy)\..*"),
    (r"py:.*", r"(collections\.abc|pathlib|os|typing)\..*|True|False|None"),
    # what `combine` hands to the rules of `lazyccd.rejection`, which users do not call
    (r"py:(class|obj)", r"lazyccd\.(kernels|ops)\.stack\..*"),
    # the night that `reduce` returns, and what a recipe is checked into
    (r"py:class", r"lazyccd\.batch\.(run\.Run|recipe\.steps\.RecipeStep|levels\.Level|options\.Options)"),
    # aliases of types, and classes that are imported for type checkers only: signatures show their bare names
    (r"py:class", r"[A-Z]\w+"),
    # what CCDData inherits from astropy, in the words of its docstrings
    (r"py:(func|obj)", r"fits_ccddata_(reader|writer)|ndarray"),
]


FOLDER = re.compile(re.escape(f"{tempfile.gettempdir()}/") + r"tmp\w+/")
"""A folder in which a notebook runs; its name is another one in each build."""


def name_folders(_app: Sphinx, doctree: nodes.document) -> None:
    """Show the folder in which a notebook ran as /data, in text and in tables."""
    for node in list(doctree.findall(nodes.Text)):
        if FOLDER.search(node):
            node.parent.replace(node, nodes.Text(FOLDER.sub("/data/", node)))


def name_alias(*event: Any) -> tuple[str | None, str | None]:
    """Show an alias of a type by its name: inside a union Sphinx shows its own class for it."""
    signature, returns = event[-2:]
    return None if signature is None else re.sub(r"TypeAliasForwardRef\('npt\.(\w+)'\)", r"\1", signature), returns


def publish_schema(app: Sphinx, error: Exception | None) -> None:
    """Write the JSON Schema of recipes beside the pages, where editors find it."""
    if error is None:
        (Path(app.outdir) / "recipe.schema.json").write_text(json.dumps(json_schema(), indent=1))


def setup(app: Sphinx) -> None:
    """Have Sphinx call the functions above for every page and every signature."""
    app.connect("doctree-read", name_folders)
    app.connect("autodoc-process-signature", name_alias)
    app.connect("build-finished", publish_schema)
