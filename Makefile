# The commands of the course. `make course` and `make test` are the two to know.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Tests share the cores as workers of one thread each, which small tensors like best;
# a file (so a notebook, or what its tests have set up) stays with one worker.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile
# The lessons that train take longest; begun first, they leave no worker idle at the end.
LONG   := $(wildcard notebooks/1[1-4]*.ipynb notebooks/A*.ipynb)
LESSONS = $(LONG) $(filter-out $(LONG),$(wildcard notebooks/*.ipynb))
NBVAL  := $(PYTEST) --no-loadscope-reorder --nbval --nbval-current-env --nbval-cell-timeout=120 \
	--nbval-sanitize-with=tests/nbval_sanitize.cfg

.PHONY: help course lab install test test-slow types hooks export exercises new-exercise grade ledger figures \
	bench badges site playground browser-test clean

help:  ## what can be asked for
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/' | expand -t 14

# Of what pip prints, a line per download with its size. The pipe hides whether pip has
# failed, so pip's own side makes the marks.
SHORT := grep --line-buffered -E '^(Downloading|Using cached|Building|Installing)'
# Authors need more; in one go, or pip would look through all packages twice.
$(VENV)/.author: EXTRA := [dev]
$(VENV)/.learner $(VENV)/.author: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try: make PYTHON=python3.12 course" if sys.version_info < (3, 11) else 0)'
	@echo "1 of 2: an environment for the course, in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "2 of 2: its packages; the first time this takes some minutes"
	@rm -f $@
	@($(BIN)/pip install -c constraints.txt -r requirements.txt -e ".$(EXTRA)" \
		&& touch $(VENV)/.learner $@) | $(SHORT)
	@test -e $@

install: $(VENV)/.learner  ## set up .venv with everything a learner needs

course: install  ## run every lesson here; ends with a page that lists them
	@$(BIN)/python tools/run_course.py

lab: install  ## open the lessons in JupyterLab
	@$(BIN)/jupyter lab notebooks

test: $(VENV)/.author  ## check modules, lessons and proofs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types
	@$(PYTEST) tests -m "not slow"
	@$(NBVAL) $(LESSONS)

# What takes longest is begun first here, too.
SLOW   := tests/training tests/exercises tests/site tests/lessons tests/project tests/data \
	tests/faults
# They mostly wait for processes and a browser: one worker more keeps the cores busy.
SLOW_WORKERS ?= 3
test-slow: $(VENV)/.author  ## the checks that take minutes
	@$(PYTEST) -n $(SLOW_WORKERS) --no-loadscope-reorder $(SLOW) -m slow --durations=15
	@$(NBVAL) notebooks/solutions

types: $(VENV)/.author  ## check the types of package and tools with pyright
	@$(BIN)/pyright

hooks: $(VENV)/.author  ## run the quick checks before each commit from now on
	@$(BIN)/pre-commit install

export: $(VENV)/.author  ## write going_modular/ from the lessons
	@$(BIN)/python tools/export_modules.py

exercises: $(VENV)/.author  ## make notebooks/exercises/ from notebooks/solutions/
	@$(BIN)/python tools/make_exercises.py

new-exercise: $(VENV)/.author  ## add a task to write: make new-exercise LESSON=05 NAME=patch_mean
	@test -n "$(LESSON)" -a -n "$(NAME)" || { echo "say which: make new-exercise LESSON=05 NAME=patch_mean"; exit 2; }
	@$(BIN)/python tools/new_exercise.py "$(LESSON)" "$(NAME)"

OUT ?= grades.csv
grade: $(VENV)/.author  ## points of all submissions: make grade SUBMISSIONS=DIR OUT=grades.csv
	@test -n "$(SUBMISSIONS)" || { echo "say whose: make grade SUBMISSIONS=folder"; exit 2; }
	@$(BIN)/python tools/grade.py "$(SUBMISSIONS)" --out "$(OUT)"

ledger: $(VENV)/.author  ## write the table of proofs into the README
	@$(BIN)/python tools/write_ledger.py

figures: $(VENV)/.learner  ## draw the figures in images/ again
	@$(BIN)/python -m vit_course.figures.draw

bench: $(VENV)/.author  ## time and memory beside other libraries: benchmarks/RESULTS.md
	@$(BIN)/python benchmarks/speed.py
	@$(BIN)/python benchmarks/time_to_accuracy.py
	@$(BIN)/python benchmarks/results.py

BRANCH ?= main
badges:  ## write the repository's address everywhere: make badges REPO=owner/name BRANCH=main
	@$(PYTHON) tools/set_repository.py $(REPO) $(BRANCH)

site: $(VENV)/.author  ## build the web site into build/site
	@$(BIN)/python tools/make_site.py

playground: $(VENV)/.author  ## build the page that runs the model in the browser, serve it
	@$(BIN)/python tools/make_playground.py
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory build

browser-test: $(VENV)/.author  ## try the site and JupyterLab in a browser; needs Chromium
	@$(PYTEST) tests/site -m slow

clean:  ## remove what the commands above made, except .venv and data/
	@rm -rf build dist .hypothesis .pytest_cache .ruff_cache
