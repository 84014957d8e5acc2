# make demo: install into .venv and run the shipped PatchCore configuration on the embedded sample
# make test: the same for the tests; those that take minutes each: make test-slow
# make test-min: the tests with the lowest versions that setup.cfg allows, installed into .venv-min
# make docs: the site, in docs/_build/html
# make notebooks: run the notebooks and store them with light outputs, in minutes
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-min
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
DOCUMENTING := $(VENV)/documenting
PYTEST_ARGS ?=
# torch asks Linux for large pages; without them a CPU spends most of a large batch in page faults
export THP_MEM_ALLOC_ENABLE ?= 1

.PHONY: demo test test-slow test-min lint docs notebooks clean

# the marker is renewed whenever the metadata changes, so both targets install once
$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (kornia 0.9); this is " + sys.version + ". Give another: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[ray,twoclass,webdataset,test]'
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/anomalib-spd train --config patchcore_spd --data anomalib_spd.data.Sample
	@echo "Look at results/Patchcore/Sample/brick/latest/images/contact_sheet.png: truth, anomaly map, score and verdict of every test image."
	@echo "This was a demo on drawn defects; its figures say nothing about real ones."

# one thread for each of several processes: most tests are too small for more
PYTEST := -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope --durations 30 --ignore tests/deploy
# processes of their own: the runtimes that they load have ended one that had run hundreds of other tests
PYTEST_DEPLOY := -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal --durations 10 tests/deploy

test: $(INSTALLED) lint
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m 'not slow' $(PYTEST_ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST_DEPLOY) -m 'not slow'

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m slow $(PYTEST_ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST_DEPLOY) -m slow

# what setup.cfg names is installed as old as it may be; what that needs is as new as can be
$(LOWEST)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[ray,twoclass,webdataset,test]'
	touch $(LOWEST)/installed

test-min: $(LOWEST)/installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python $(PYTEST) -m 'not slow' $(PYTEST_ARGS)
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python $(PYTEST_DEPLOY) -m 'not slow'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(DOCUMENTING): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $(DOCUMENTING)

# the warnings that are ignored are of Python; those of Sphinx are errors
docs: $(DOCUMENTING)
	$(BIN)/python -W ignore -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

notebooks: $(INSTALLED)
	$(BIN)/python scripts/store_notebooks.py

clean:
	rm -rf $(VENV) $(LOWEST) build dist docs/_build docs/_generated *.egg-info
