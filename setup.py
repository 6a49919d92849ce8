"""Metadata of svrg_optimization, and how its wheel is built."""

import pathlib
import re
import shutil
import sys

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

if sys.version_info >= (3, 13):
    # Older versions of pip would build NumPy from its sources before they look at python_requires, and fail in that.
    sys.exit("svrg_optimization needs Python 3.8 to 3.12, and this is Python {}.{}: mxnet 1.9.1 needs a NumPy below 2, "
             "which was never built for a newer Python.".format(*sys.version_info[:2]))  # fmt: skip

HERE = pathlib.Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.*)"', (HERE / "svrg_optimization" / "__init__.py").read_text("utf-8")).group(1)
# Where the project is to be found; nothing else names the place. See "A release" in CONTRIBUTING.md.
HOME = "https://svrg-optimization.example"
FILES = HOME + "/blob/main/"

EXAMPLES = ["scikit-learn>=1.2", "matplotlib>=3.5"]
# With pytest 9.2, pytest-xdist 3.8 takes no notice of the groups of tests (its issue 1386).
TEST = ["pytest>=7.4,<9.2", "pytest-xdist>=3.3", "hypothesis>=6.80", "jupytext>=1.16", "numpydoc>=1.5", *EXAMPLES]
# Python 3.8 has no versions of these with which the site can be built.
DOCS = [each + "; python_version >= '3.9'" for each in (
    "sphinx>=7.0", "numpydoc>=1.5", "myst-nb>=1.0", "furo>=2023.9", "sphinx-copybutton>=0.5.2", "sphinx-design>=0.5",
    "sphinx-mathjax-offline>=0.0.2", "jupytext>=1.16", *EXAMPLES,  # pages that run
)]  # fmt: skip


class BuildWithStartup(build_py):
    """Puts what makes ``import mxnet`` work beside the package: see svrg_optimization/mxnet_api/startup.py."""

    NAME = "_svrg_optimization_startup"

    def run(self):
        """Build the package, and then these two files."""
        # An earlier build may have left modules that are gone.
        shutil.rmtree(pathlib.Path(self.build_lib) / "svrg_optimization", ignore_errors=True)
        super().run()
        # What an editable wheel has is in the folder that is to be installed: nothing of the sources is built.
        editable = getattr(self, "editable_mode", False)
        beside = pathlib.Path(self.get_finalized_command("install").install_lib if editable else self.build_lib)
        shutil.copyfile(HERE / "svrg_optimization" / "mxnet_api" / "startup.py", beside / (self.NAME + ".py"))
        (beside / (self.NAME + ".pth")).write_text("import {0}; {0}.install()\n".format(self.NAME), "utf-8")


def description():
    """Return the README, with links that work on another site, too."""
    text = (HERE / "README.md").read_text("utf-8")
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:)", r"\1" + HOME + "/raw/main/", text)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?!https?:|#)", r"\1" + FILES, text)


setup(
    name="svrg-optimization",
    version=VERSION,
    description="SVRG, stochastic variance reduced gradient, for mxnet.module.Module programs",
    long_description=description(),
    long_description_content_type="text/markdown",
    author="The svrg_optimization developers",
    url=HOME,
    project_urls={
        "Documentation": FILES + "docs/index.md",
        "Changes": FILES + "CHANGELOG.md",
        "Source": HOME,
        "Issues": HOME + "/issues",
    },
    license="Apache-2.0",
    keywords=["svrg", "variance reduction", "stochastic gradient", "convex optimization", "mxnet", "machine learning"],
    packages=find_packages(include=["svrg_optimization", "svrg_optimization.*"]),
    package_data={"svrg_optimization": ["py.typed"]},
    cmdclass={"build_py": BuildWithStartup},
    # mxnet 1.9.1 works with a NumPy below 2 only, and NumPy 1.26 was never built for Python 3.13. Python 3.12 has no
    # distutils of its own any more, which mxnet imports.
    python_requires=">=3.8,<3.13",
    install_requires=["mxnet>=1.9.1,<2", "numpy>=1.17,<2", 'setuptools; python_version >= "3.12"'],
    extras_require={
        "test": TEST,
        "examples": EXAMPLES,
        "bench": [*EXAMPLES, "cyanure>=1.1"],
        "docs": DOCS,
        # It is built when it is installed: see docs/cluster.md.
        "horovod": ["horovod>=0.28,<0.29"],
        # What ruff calls formatted depends on its version.
        "dev": [*TEST, *DOCS, "ruff>=0.17,<0.18", "mypy>=1.8", "build>=1.0", "twine>=5"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.8",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Mathematics",
        "Typing :: Typed",
    ],
)
