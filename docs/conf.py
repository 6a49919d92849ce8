"""Settings of Sphinx: `make docs` builds the site, `make linkcheck` looks at its links to elsewhere."""

import logging
import os
import pathlib
import re
import sys
import warnings
from urllib.parse import urlsplit

from docutils import nodes

DOCS = pathlib.Path(__file__).resolve().parent
TREE = DOCS.parent

# This tree, whether or not it is installed; for the pages that run, too, which do so in processes of their own.
sys.path.insert(0, str(TREE))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TREE), os.environ.get("PYTHONPATH")]))
# The same figures on a laptop and on a server.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MXNET_SUBGRAPH_VERBOSE"] = "0"
# The kernel "python3" is this interpreter's own, not one that the user has installed; nor does it read their profile.
os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
os.environ.pop("JUPYTER_PATH", None)
PROFILE = DOCS / "_build" / "ipython" / "profile_default"
PROFILE.mkdir(parents=True, exist_ok=True)
os.environ["IPYTHONDIR"] = str(PROFILE.parent)
# Neither side says that it runs, nor how it talks to the other on this machine.
(PROFILE / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n", "utf-8")
logging.getLogger("traitlets").setLevel(logging.WARNING)
# mxnet's own, when it is imported.
os.environ["PYTHONWARNINGS"] = "ignore::DeprecationWarning,ignore::SyntaxWarning"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mxnet's own, when it is imported
    import svrg_optimization

    svrg_optimization.SVRGModule  # noqa: B018

project = "svrg_optimization"
version = release = svrg_optimization.__version__
html_title = "{} {}".format(project, version)
html_short_title = project
extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "numpydoc", "sphinx_copybutton", "sphinx_design",
    "sphinx-mathjax-offline",
]  # fmt: skip
exclude_patterns = ["_build", "**.ipynb"]

# ------------------------------------------------------------------------------------------------------- looks

# A quotation mark may be one of Python's.
smartquotes = False
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["copy.js"]
# The index of modules is nearly all of what is not public.
html_copy_source = html_show_sourcelink = html_domain_indices = False
html_theme_options = {"top_of_page_buttons": [], "navigation_with_keys": True}
html_show_copyright = False
# With both, lines of a diff that go are red and those that come green.
pygments_style, pygments_dark_style = "tango", "monokai"
# A block without a language is what a program prints.
highlight_language = "none"
# Prompts aren't copied, and with prompts no output is.
copybutton_prompt_text = r">>> |\.\.\. ?|\$ "
copybutton_prompt_is_regexp = True
# Not what a page that runs has printed.
copybutton_selector = "div:not(.output) > div.highlight > pre"
copybutton_line_continuation_character = "\\"

# ------------------------------------------------------------------------------------------------------- pages

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
# Its menu would fetch parts of MathJax from elsewhere.
mathjax3_config = {"options": {"enableMenu": False}}

# Pages that run do so at each build: a page whose program fails is an error, and what it writes to stderr a warning.
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "remove-warn"
nb_merge_streams = True

# --------------------------------------------------------------------------------------------------- reference

default_role = "py:obj"
# Each page says which members it shows: SVRGModule has all of Module's besides its own.
numpydoc_show_class_members = False
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
nitpicky = True
# In a docstring `tol` may be a parameter, and `AT_ONCE` a constant: only names like `a.b` and `Class` must be found.
_PLAIN = re.compile("[a-z0-9_]+|[A-Z0-9_]+")
nitpick_ignore_regex = [
    ("py:obj", _PLAIN.pattern),
    # Their documentation is elsewhere.
    ("py:.*", r"(mxnet|mx|numpy|np|matplotlib|logging|argparse|sys)\..*|Module"),
    # What classes are derived from.
    ("py:class", r"(tuple|object|types\.SimpleNamespace|.*NamedTuple|.*Optimizer|.*LRScheduler|.*KVStoreBase)"),
]

# ------------------------------------------------------------------------------------------- links to elsewhere

linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_workers = 2
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|10\.)[^ ]*"]
# A page that is slow today is there, mostly.
linkcheck_report_timeouts_as_broken = False

# Pages that are files of the repository as they are, written for readers there: page, and file.
FILES = {"benchmarks": "benchmarks/README.md", "changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
# Pages that are offered as notebooks, too.
NOTEBOOKS = ["first_hour"]

_LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")


def links_from(text, folder):
    """The text of a file of the repository in this folder, with relative links as a page in docs/ has them."""

    def rewritten(match):
        path, hash_mark, anchor = match.group().partition("#")
        if not path or urlsplit(path).scheme:
            return match.group()
        moved = os.path.relpath(str(TREE / folder / path), str(DOCS)).replace(os.sep, "/")
        # What isn't a page of the site is offered as a file.
        return "path:" + moved if moved.startswith("../") else moved + hash_mark + anchor

    return _LINK.sub(rewritten, text)


def as_notebook(text):
    """The notebook of a page that runs, as text; the links to other pages lead to those of the site."""
    import jupytext

    notebook = jupytext.reads(text, fmt="md:myst")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(
                lambda match: re.sub(r"^([\w-]+)\.md(?=#|$)", r"\1.html", match.group()), cell.source
            )
    return jupytext.writes(notebook, fmt="ipynb")


def resolve(app, env, node, content):
    """Find what a docstring names as a reader would say it, `SVRGModule.fit`, from every module."""
    if node.get("refdomain") != "py" or node.get("refspecific") or _PLAIN.fullmatch(node["reftarget"]):
        return None
    node["refspecific"] = True
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], node["reftarget"], node, content)


def read_file(app, page, source):
    """Put the file of the repository in the place of its page."""
    if page in FILES:
        path = TREE / FILES[page]
        app.env.note_dependency(str(path))
        source[0] = links_from(path.read_text("utf-8"), path.parent.relative_to(TREE))


def skip_fields(app, kind, name, member, skip, options):
    """Leave out what Python says of the fields of a named tuple: their class describes them."""
    return True if (getattr(member, "__doc__", None) or "").startswith("Alias for field number") else None


def strip_code(app, document):
    """Take the empty line off the end of code: doctest wants one there, and a reader doesn't."""
    for block in document.findall(nodes.literal_block):
        text = block.astext().rstrip("\n")
        if len(block.children) == 1 and isinstance(block[0], nodes.Text):
            block.rawsource, block[:] = text, [nodes.Text(text)]


def write_notebooks(app, exception):
    """Write, beside each page that is offered as a notebook, the notebook."""
    if exception is None and app.builder.format == "html":
        for page in NOTEBOOKS:
            path = DOCS / (page + ".md")
            if path.exists():
                pathlib.Path(app.outdir, page + ".ipynb").write_text(as_notebook(path.read_text("utf-8")), "utf-8")


def setup(app):
    """Sphinx calls this."""
    app.connect("source-read", read_file)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("doctree-read", strip_code)
    app.connect("build-finished", write_notebooks)
