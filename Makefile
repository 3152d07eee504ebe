# The first two commands on a fresh machine: `make demo` and `make test`.
PY := .venv/bin/python
SYSTEM ?= spgsn
THREADS ?= 1
# Real data, where it is: set TENFOLD_DATA, or have it beside the checkout. Otherwise it is generated.
ifneq ($(wildcard ../shared/data),)
export TENFOLD_DATA ?= $(abspath ../shared/data)
endif

# Compiled files are kept: without them every process of the tests compiles the whole library anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint claims bench clean

demo: .venv/ready
	$(PY) -m tenfold demo

test: .venv/ready
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 3 --dist worksteal -m "not slow" tests

lint: .venv/ready
	.venv/bin/ruff check src tests benchmarks docs claims examples
	.venv/bin/ruff format --check src tests benchmarks docs claims examples
	.venv/bin/mypy

claims: .venv/ready
	OMP_NUM_THREADS=$(THREADS) $(PY) -m pytest -m slow tests
	OMP_NUM_THREADS=$(THREADS) $(PY) -m tenfold claim $(SYSTEM) --threads $(THREADS)
	for script in $(filter-out %_worker.py,$(wildcard claims/$(SYSTEM)_*.py)); do \
		OMP_NUM_THREADS=1 $(PY) $$script || exit 1; done
	$(if $(filter spgsn itpn,$(SYSTEM)),OMP_NUM_THREADS=1 $(PY) claims/length.py $(SYSTEM))

bench: .venv/ready
	$(PY) benchmarks/$(SYSTEM).py

.venv/ready: pyproject.toml constraints.txt
	python3 -m venv .venv
	$(PY) -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
