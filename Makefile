# The interpreter outside of any activated environment, because the environments made here have no pip.
PYTHON ?= $(shell python3 -c 'import sys; print(sys._base_executable)')
SOURCE ?= demo/recording.wav

.PHONY: run test test-all gpu lock clean

# Listen to the bundled recording, or `make run SOURCE=microphone`.
run: .venv/ready
	@.venv/bin/python demo/hear.py "$(SOURCE)"

# Lint, types, and all tests but the long ones.
test: .venv-test/ready
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy
	.venv-test/bin/python -m pytest -n auto --dist loadfile

# The same with the long tests (the sandbox, whole trainings), and the coverage of what runs in the tests' own process.
test-all: .venv-test/ready
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy
	.venv-test/bin/python -m coverage run -m pytest -m "slow or not slow"
	.venv-test/bin/python -m coverage report

.venv/ready: locks/run.txt pyproject.toml
	$(call environment,.venv,run)

# The same environment with ONNX Runtime for CUDA in place of the CPU's.
gpu:
	$(call environment,.venv,gpu)

.venv-test/ready: locks/test.txt pyproject.toml
	$(call environment,.venv-test,test)

# pip runs from outside, so that ensurepip (which Debian splits off) is not needed and the
# environment holds only what the lock file names.
define environment
	$(PYTHON) -m venv --clear --without-pip $(1)
	$(PYTHON) -m pip --python $(1)/bin/python install --quiet --root-user-action ignore --require-hashes -r locks/$(2).txt
	$(PYTHON) -m pip --python $(1)/bin/python install --quiet --root-user-action ignore --no-deps --no-build-isolation --editable .
	@touch $(1)/ready
endef

# Resolve anew; needs uv. The files carry versions and hashes, no address.
LOCK = uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --extra mic --extra metrics --extra web --extra mqtt --extra wyoming --group build
lock:
	$(LOCK) --extra cpu -o locks/run.txt
	$(LOCK) --extra gpu -o locks/gpu.txt
	$(LOCK) --extra cpu --extra learn --extra corpus --extra ray --group train --group test -o locks/test.txt

clean:
	rm -rf .venv .venv-test build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
