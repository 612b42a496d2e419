"""The documentation site: `python -m sphinx -W docs docs/_build`."""

import sys
from pathlib import Path

from purifier._version import __version__

sys.path.insert(0, str(Path(__file__).resolve().parent / "_ext"))

project = "purifier"
author = "The purifier authors"
release = version = __version__
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "repository_pages",
]
exclude_patterns = ["_build", "gallery/*"]
nitpicky = True
# Single backquotes: a link if they name something public; see _ext/api_pages.py.
default_role = "public"

myst_enable_extensions = ["colon_fence", "html_image"]
myst_heading_anchors = 4

autodoc_typehints = "description"
autodoc_member_order = "groupwise"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "tour",
    "capture_repr": (),
    "filename_pattern": "/plot_",
    "copyfile_regex": r".*index\.rst",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "within_subsection_order": "FileNameSortKey",
    "min_reported_time": 3600,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = f"purifier {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["sort.js"]
html_show_sphinx = False
html_copy_source = False
