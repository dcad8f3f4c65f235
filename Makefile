# Every target builds the environment it needs. `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin
DATA ?=
# A file of tests stays in one process, where its tests share what they fitted. The longest files come first.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# The tests and examples whose results must not hang on the last bits of numbers.
NUMBERS := detector/resolution.py detector/series detector/encoding detector/members detector/decide detector/detectors \
  $(addprefix tests/test_,$(addsuffix .py,calibrate event_sequence forest fuse neighbours policy resample residual_rule \
  resolution row_errors scorer segments sequence series_encoders series_model series_scorer series_stream staleness \
  tabular window_pca windows))
# Where Debian's Alertmanager looks for them, and does not start without.
TEMPLATES := /usr/share/prometheus/alertmanager
export TF_CPP_MIN_LOG_LEVEL := 3
export NO_MKDOCS_2_WARNING := 1
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help install demo test kernels coverage alertmanager prometheus chromium spark check format bench soak peers docs settings pictures notebooks mlflow lock clean

help: ## List the targets.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(VENV)/.installed ## Build .venv from requirements.lock.

$(VENV)/.installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. Install Python 3.11, or say where it is: make install PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --disable-pip-version-check --requirement requirements.lock
	$(RUN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: install ## Simulate, train, score and explain; the results go to demo/.
	$(RUN)/detector demo

test: install ## Run the tests and doctests.
	$(RUN)/python -m pytest $(SIDE_BY_SIDE)

kernels: install ## Run the tests of numbers as on other processors: other kernels of OpenBLAS, other vectors of NumPy.
	$(RUN)/python -m tests.other_kernels $(NUMBERS) $(SIDE_BY_SIDE) -m "not slow"

coverage: install ## The same, and say which lines no test ran; less than 90 % fails.
	$(RUN)/python -m pytest $(SIDE_BY_SIDE) --cov --cov-report=term --cov-fail-under=90

alertmanager: install ## Fetch Debian's Alertmanager into .venv, for the test that alerts are taken by a real one.
	test -x $(RUN)/prometheus-alertmanager || { \
	  folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  { apt-get update -qq 2>/dev/null || true; } && \
	  (cd "$$folder" && apt-get download -qq prometheus-alertmanager && dpkg -x *.deb .) && \
	  mkdir -p $(TEMPLATES) && cp "$$folder$(TEMPLATES)"/*.tmpl $(TEMPLATES)/ && \
	  cp "$$folder/usr/bin/prometheus-alertmanager" $(RUN)/; }

prometheus: install ## Fetch Debian's Prometheus and promtool into .venv, for the tests of the alert rules and the dashboard.
	test -x $(RUN)/promtool -a -x $(RUN)/prometheus || { \
	  folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  { apt-get update -qq 2>/dev/null || true; } && \
	  (cd "$$folder" && apt-get download -qq prometheus && dpkg -x *.deb .) && \
	  cp "$$folder/usr/bin/promtool" "$$folder/usr/bin/prometheus" $(RUN)/; }

chromium: ## Install Debian's Chromium, for the tests of the console in a browser.
	command -v chromium >/dev/null || { { apt-get update -qq 2>/dev/null || true; } && apt-get install -y -qq chromium; }

spark: install ## Install Java 17 and pyspark, for the tests of scoring on Spark.
	command -v java >/dev/null || { { apt-get update -qq 2>/dev/null || true; } && apt-get install -y -qq openjdk-17-jre-headless; }
	$(RUN)/python -m pip install --disable-pip-version-check --quiet "pyspark>=4.0"

check: install ## Lint, format, types, architecture, documentation.
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/mkdocs build --strict --quiet

format: install ## Mend what the linter can mend.
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

bench: install ## Measure speed, and quality where DATA=folder of .npz files is given.
	$(RUN)/python -m benchmarks.speed
ifneq ($(DATA),)
	$(RUN)/python -m benchmarks.tabular "$(DATA)" --protocol one-class
	$(RUN)/python -m benchmarks.tabular "$(DATA)" --protocol contaminated
endif

soak: install ## Score 1,000 batches while the process is killed at random, and count rows lost or doubled.
	$(RUN)/python -m benchmarks.soak --batches 1000

peers: install ## Add PyOD to .venv, for the comparisons of `make bench`.
	$(RUN)/python -m pip install --disable-pip-version-check --editable ".[bench]"

docs: install ## Serve the documentation on this machine.
	$(RUN)/mkdocs serve

settings: install ## Write the pages of settings and of commands from the program itself.
	$(RUN)/python -m pipelines.config.reference docs/configuration.md
	$(RUN)/python -m pipelines.cli.reference docs/commands.md

pictures: install ## Take the pictures of the documentation, and each page on desk, phone and in the dark in build/pictures; needs Chromium.
	test -f demo/report.html || { $(RUN)/detector demo && $(RUN)/detector retrain demo; }
	$(RUN)/mkdocs build --strict --quiet
	$(RUN)/python docs/make_pictures.py demo

notebooks: install ## Run the notebooks and keep their outputs.
	$(RUN)/python docs/run_notebooks.py

mlflow: install ## Look at the runs of the demo in the browser.
	$(RUN)/mlflow server --backend-store-uri sqlite:///demo/mlflow.db --host 127.0.0.1 --port 5000

lock: ## Install the newest allowed versions and write requirements.lock.
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/python -m pip install --editable ".[train,service,stream,dev]"
	{ sed -n '/^#/p' requirements.lock; .venv-lock/bin/python -m pip freeze --all --exclude-editable --exclude pip; } > requirements.new
	mv requirements.new requirements.lock
	rm -rf .venv-lock

clean: ## Remove the environment, caches and what the demo wrote.
	rm -rf $(VENV) .venv-lock build site *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis demo demo-sensors
