"""Settings of Sphinx: `make docs`."""

import pathlib
import sys
import warnings

# This tree, whether or not it is installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mxnet's own, when it is imported
    import svrg_optimization

    svrg_optimization.SVRGModule  # noqa: B018

project = "svrg_optimization"
default_role = "py:obj"
version = release = svrg_optimization.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "numpydoc"]
exclude_patterns = ["_build"]

html_theme = "alabaster"
html_theme_options = {"description": "SVRG for mxnet.module.Module programs", "fixed_sidebar": True}

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# Each page says which members it shows: SVRGModule has all of Module's besides its own.
numpydoc_show_class_members = False
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
