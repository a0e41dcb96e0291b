# Two commands for a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The pair the suite is run with; the package itself declares lower bounds in setup.cfg.
TORCH = torch==2.14.1 torchvision==0.29.1
# PyPI's hearvalidator declares Python < 3.9 and plain pip would pick an old, weaker release.
VALIDATOR = --no-deps --ignore-requires-python hearvalidator==2021.0.6
EXTRAS = answers,docs,embed,formats,hub,onnx,pretrain,ray,sentence-transformers,test,transformers,visual
# What benchmarks.quality compares with; installed without dependencies, which are pinned to 2021.
PUBLISHED = hearbaseline==2021.1.1 torchcrepe==0.0.24 resemblyzer==0.1.4 openwakeword==0.5.1

.PHONY: demo test test-slow quick lint lower-bounds docs dist bench quality hear-env hear hear-tasks hear-smoke hear-evidence \
	weights clean

demo: $(VENV)/.installed
	$(BIN)/hear-msm-mae embed examples -o .demo/embeddings.npz
	$(BIN)/python examples/similarity.py .demo/embeddings.npz

# One worker per core, each with one thread and one file at a time. Files start in the order of their
# names: the doctests of the package, which take seconds, come last and keep all workers busy.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
WORKERS = -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: lint
	$(PYTEST) $(WORKERS)

# Seconds: what to run while changing the core. Left out are the runtimes of others, and memory.
WITHOUT = $(addprefix --ignore=tests/model/test_,memory.py paper_mode.py m2d_mode.py)
quick: lint
	$(BIN)/python -m pytest -q tests/test_layout.py tests/model $(WITHOUT) -k "not p16x4 and not nocls"

test-slow: $(VENV)/.test-installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The lowest versions that setup.cfg allows, on the tests of the package.
LOWER = .venv-lower
LOWER_EXTRAS = answers embed formats hub pretrain visual test
LOWER_TESTS = answers audio checkpoints cli corpus embed model pretrain tuning visualize
lower-bounds:
	$(PYTHON) -m venv $(LOWER)
	$(PYTHON) .ci/lower_bounds.py $(LOWER_EXTRAS) > $(LOWER)/bounds.txt
	$(LOWER)/bin/pip install --quiet -r $(LOWER)/bounds.txt
	$(LOWER)/bin/pip install --quiet --no-deps --editable .
	OMP_NUM_THREADS=1 $(LOWER)/bin/python -m pytest -q $(WORKERS) $(addprefix tests/,$(LOWER_TESTS))

docs: $(VENV)/.test-installed
	$(BIN)/mkdocs build --quiet

dist: $(VENV)/.installed
	$(BIN)/pip install --quiet build
	$(BIN)/python -m build

bench: $(VENV)/.test-installed
	$(BIN)/python -m benchmarks.inference --write

# The table of benchmarks/RESULTS.md, on a Debian-like system. It downloads its sounds, and renders speech
# and notes with fluidsynth, timidity, flite, festival, festvox-kallpc16k, -kdlpc16k and -us-slt-hts.
quality: $(VENV)/.test-installed
	$(BIN)/pip install --quiet --editable ".[quality]"
	$(BIN)/pip install --quiet --no-deps $(PUBLISHED)
	$(BIN)/python -m benchmarks.quality --write

# hear-eval-kit has a separate environment; benchmarks/hear/README.md says what is run in it.
# `make hear` takes the official tasks from TASKS_DIR, and other options in HEAR_OPTIONS.
HEAR_ENV = .venv-hear
HEAR = $(HEAR_ENV)/bin/python -m benchmarks.hear
HEAR_TASKS ?= runs/hear-tasks
TASKS_DIR ?= tasks
MODULE ?= hear_msm_mae
HEAR_OPTIONS ?=
hear-env: $(HEAR_ENV)/.installed

hear: $(HEAR_ENV)/.installed
	$(HEAR) run --module $(MODULE) --tasks-dir $(TASKS_DIR) $(HEAR_OPTIONS)

hear-tasks: $(HEAR_ENV)/.installed
	$(HEAR) tasks --out $(HEAR_TASKS) --sample-rates 16000 44100

hear-smoke: $(HEAR_ENV)/.installed
	$(HEAR) tasks --out runs/hear-smoke-tasks --tasks letters sounds --small
	$(HEAR) run --tasks-dir runs/hear-smoke-tasks --runs-dir runs/hear-smoke \
		--grid fast --grid-points 1

hear-evidence: hear-tasks
	$(HEAR) evidence --tasks-dir $(HEAR_TASKS) --write

$(HEAR_ENV)/.installed: benchmarks/hear/requirements.txt setup.cfg
	$(PYTHON) -m venv $(HEAR_ENV)
	$(HEAR_ENV)/bin/pip install --quiet $(TORCH)
	$(HEAR_ENV)/bin/pip install --quiet -r benchmarks/hear/requirements.txt
	$(HEAR_ENV)/bin/pip install --quiet $(VALIDATOR) heareval==2021.1.3 hearbaseline==2021.1.1
	$(HEAR_ENV)/bin/pip install --quiet --editable .
	touch $@

# The recordings of the corpus, and a short run of the recipe for CPUs. How the bundled weights are
# made: weights/README.md.
WEIGHTS_RUN ?= runs/weights
SAMPLES ?= 6400
weights: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable ".[pretrain]"
	$(BIN)/python -m weights.corpus.build $(WEIGHTS_RUN)/audio --kinds speech music sound
	$(BIN)/hear-msm-mae prepare $(WEIGHTS_RUN)/audio $(WEIGHTS_RUN)/corpus
	$(BIN)/hear-msm-mae pretrain small-cpu corpus=$(WEIGHTS_RUN)/corpus \
		run_dir=$(WEIGHTS_RUN)/samples-$(SAMPLES) samples=$(SAMPLES) source_weights="{speech: 4, sound: 4}"
	$(BIN)/hear-msm-mae export $(WEIGHTS_RUN)/samples-$(SAMPLES) \
		$(WEIGHTS_RUN)/samples-$(SAMPLES).safetensors --half

$(VENV)/.installed: setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable ".[$(EXTRAS)]" tensorflow-cpu "mteb[audio]==2.26.24"
	$(BIN)/pip install --quiet --no-deps xares==0.1.3 loguru==0.7.3
	$(BIN)/pip install --quiet $(VALIDATOR)
	touch $@

clean:
	rm -rf $(VENV) $(HEAR_ENV) $(LOWER) .demo build dist *.egg-info
