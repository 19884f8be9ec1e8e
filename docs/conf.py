"""How Sphinx builds these pages: ``sphinx-build -n -W --keep-going -b html docs OUT``."""

import sys
from pathlib import Path

_here = Path(__file__).resolve().parent
sys.path[:0] = [str(_here / "_ext"), str(_here.parent)]

from pbauth import __version__  # noqa: E402 - found by the line above

project = "pbauth"
author = "the authors of pbauth"
copyright = f"{author}, MIT licence"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.towncrier.ext",
    "apilinks",
    "floors",
    "interfaces",
    "options",
    "outside",
    "sequence",
]
exclude_patterns = ["_build", "listings", "examples", "newsfragments", "**.inc"]

# The page of changes also has the fragments of changes that are not released yet.
towncrier_draft_autoversion_mode = "draft"
towncrier_draft_include_empty = False
towncrier_draft_working_directory = _here.parent

# A name in single backticks is one of the API, where there is a page for it.
highlight_language = "text"
default_role = "py:obj"
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 70
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# sphinx-build -b linkcheck looks at links inside the site: others break without a change of ours.
linkcheck_ignore = [r"https?://"]

html_theme = "furo"
html_title = f"pbauth {release}"
html_static_path = ["_static"]
html_css_files = ["pbauth.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
