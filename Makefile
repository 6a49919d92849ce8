# `make test` and `make demo` need nothing but make and a Python: see tools/install.sh.
# Choose a Python with PYTHON=/path/to/python3.9, and pytest's or the demo's arguments with ARGS='-k checkpoint'.

PYTHON ?=
ARGS ?=
export PYTHON

INSTALL = @sh tools/install.sh
RUN = @.venv/bin/python

.NOTPARALLEL:
.PHONY: help demo test lint format types docs linkcheck dist bench bench-quick mutation horovod scale clean

help:  ## what there is to make
	@sed -n 's/^\([a-z-]*\): *## */\1: /p' Makefile

demo:  ## SVRG against SGD, as a table and as a picture, svrg_logistic_regression.png
	$(INSTALL) examples
	$(RUN) examples/logistic_regression.py $(ARGS)

test:  ## all tests, on the installed wheel
	$(INSTALL) test
	@sh tools/run_tests.sh $(ARGS)

lint:  ## ruff: what it finds wrong, and what isn't formatted
	$(INSTALL) dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format:  ## formats the sources by ruff
	$(INSTALL) dev
	$(RUN) -m ruff format .

types:  ## mypy
	$(INSTALL) dev
	$(RUN) -m mypy

docs:  ## the documentation, in docs/_build/html; a warning is an error; needs Python 3.9
	$(INSTALL) docs
	$(RUN) -m sphinx -W --keep-going -q docs docs/_build/html
	@echo "The documentation is in $(CURDIR)/docs/_build/html/index.html"

linkcheck:  ## the links of the documentation to other sites; needs the network
	$(INSTALL) docs
	$(RUN) -m sphinx -q -b linkcheck docs docs/_build/linkcheck

dist:  ## the source archive and the wheel as released, in dist; a warning about them is an error
	$(INSTALL) dev
	@rm -rf dist
	$(RUN) -m build --outdir dist .
	@rm -rf build *.egg-info
	$(RUN) -m twine check --strict dist/*

bench:  ## all benchmarks, on an idle machine: half an hour
	$(INSTALL) bench
	$(RUN) -m benchmarks $(ARGS)

bench-quick:  ## a part of them, in a minute or two
	$(INSTALL) bench
	$(RUN) -m benchmarks --quick $(ARGS)

mutation:  ## seeds defects, and sees a test fail for each
	$(INSTALL) test
	$(RUN) tests/mutation_run.py $(ARGS)

horovod:  ## builds Horovod, with cmake and g++, and tests the workers of Horovod jobs
	$(INSTALL) test
	@sh tools/install_horovod.sh
	$(RUN) tests/distributed/horovod_run.py

scale:  ## a job of 16 workers and 4 servers, and what they send, in a minute; all figures of the docs: ARGS=--all
	$(INSTALL) test
	$(RUN) -W ignore tests/distributed/scale_run.py $(ARGS)

clean:  ## removes all that make has made
	rm -rf .venv build dist *.egg-info docs/_build docs/api .mypy_cache .ruff_cache out svrg_*.png
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
