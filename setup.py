"""Metadata of svrg_optimization."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.*)"', (HERE / "svrg_optimization" / "__init__.py").read_text("utf-8"))

EXAMPLES = ["scikit-learn>=1.2", "matplotlib>=3.5"]
TEST = ["pytest>=7.4", "pytest-xdist>=3.3", "hypothesis>=6.80", *EXAMPLES]  # which are tested too
DOCS = [
    "sphinx>=7.0", "numpydoc>=1.5", "myst-nb>=1.0", "furo>=2023.9", "sphinx-copybutton>=0.5.2", "sphinx-design>=0.5",
    "sphinx-mathjax-offline>=0.0.2", "jupytext>=1.16", *EXAMPLES,  # pages that run
]  # fmt: skip

setup(
    name="svrg-optimization",
    version=VERSION.group(1),
    description="SVRG, stochastic variance reduced gradient, for mxnet.module.Module programs",
    long_description=(HERE / "README.md").read_text("utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["svrg_optimization", "svrg_optimization.*"]),
    package_data={"svrg_optimization": ["py.typed"]},
    # mxnet 1.9.1 uses numpy.bool, which NumPy 1.24 removed, and NumPy 1.23 was never built for Python 3.12. mxnet
    # itself asks for any NumPy below 2: without our bound, pip installs one with which `import mxnet` fails.
    python_requires=">=3.8,<3.12",
    install_requires=["mxnet>=1.9.1,<2", "numpy>=1.17,<1.24"],
    extras_require={
        "test": TEST,
        "examples": EXAMPLES,
        "bench": [*EXAMPLES, "cyanure>=1.1"],
        "docs": DOCS,
        # It is built when it is installed: see docs/cluster.md.
        "horovod": ["horovod>=0.28,<0.29"],
        # What ruff calls formatted depends on its version.
        "dev": [*TEST, *DOCS, "ruff>=0.17,<0.18", "mypy>=1.8"],
    },
    classifiers=[
        "Programming Language :: Python :: 3.8",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
