# What a developer runs. Everything but `clean` and `help` sets up what it needs first: Debian's
# packages and .venv (see scripts/bootstrap). ARGS= passes options on to the program that is run.

PYTHON := .venv/bin/python
ARGS ?=
SOAK_STEPS ?= 200000
# Two files of tests at a time; ARGS="-n 0" takes one after the other.
PYTEST := $(PYTHON) -m pytest -n 2 --dist loadfile

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' Makefile

.PHONY: ready
ready: ## install what is missing, no more
	@scripts/bootstrap

.PHONY: fuzz
fuzz: ready ## one minute of testing against a live QEMU (ARGS="--seed 1")
	@.venv/bin/qbprop fuzz --max-time 60s $(ARGS)

.PHONY: test
test: lint ## lint, then every test, two files at a time (ARGS="-n 0 -k bitmap")
	@scripts/bootstrap redis-server
	$(PYTEST) $(ARGS)

.PHONY: test-report
test-report: ready ## install Debian's chromium, and test the pages of findings in it
	@scripts/bootstrap chromium
	$(PYTHON) -m pytest tests/report $(ARGS)

.PHONY: test-qemu-source
test-qemu-source: ready ## build a small QEMU; run its own suite and git bisect on exported findings
	@scripts/build-qemu --source build/qemu.src build/qemu
	QBPROP_QEMU_SOURCE=build/qemu.src QBPROP_QEMU_BUILD=build/qemu \
		$(PYTHON) -m pytest -rA tests/qemu_source $(ARGS)

.PHONY: lint
lint: ready ## ruff and mypy --strict over everything
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

.PHONY: format
format: ready ## let ruff lay out the code
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

.PHONY: soak
soak: ready ## campaigns with one seed after another, until SOAK_STEPS steps are checked
	@$(PYTHON) scripts/soak.py --steps $(SOAK_STEPS) --out build/soak $(ARGS)

.PHONY: sensitivity
sensitivity: ready ## how soon live QEMU contradicts each wrong rule (ARGS="--seeds 3")
	@$(PYTHON) scripts/sensitivity.py --docs $(ARGS)

.PHONY: reproducers
reproducers: ready ## run each exported script 20 times (ARGS="--times 3 always-undone")
	@$(PYTHON) scripts/reproducers.py $(ARGS)

.PHONY: bench
bench: ready ## what a step costs beside the bare traffic with QEMU (ARGS="--memory 10000")
	@$(PYTHON) -m benchmarks $(ARGS)

.PHONY: qemu
qemu: ## build a small QEMU from Debian's sources, in build/qemu (ARGS="FOLDER", see --help)
	@scripts/build-qemu $(or $(ARGS),build/qemu)

.PHONY: qemus
qemus: ## bring Debian's QEMUs 5.2, 7.2, 10.0 and 11.1 into build/qemus (ARGS="10.0", see --help)
	@scripts/qemus $(ARGS)

.PHONY: version-table
version-table: ready qemus ## write the table of docs/versions.md anew
	@$(PYTHON) scripts/version_table.py

.PHONY: test-all-qemus
test-all-qemus: ready qemus ## every test on each QEMU of `make qemus` (ARGS="-k bitmap")
	@code=0; for bin in $${QBPROP_QEMUS:-build/qemus}/*/bin; do \
		echo "== $$bin"; \
		PATH=$$(realpath $$bin):$$PATH $(PYTEST) $(ARGS) || code=1; \
	done; exit $$code

.PHONY: clean
clean: ## remove what was built; .venv and qbprop-runs stay
	rm -rf build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src model tests scripts benchmarks -name __pycache__ -prune -exec rm -rf {} +
