# make demo    trains a small network on real digits and draws pictures of the run
# make test    runs all tests
# make claims  measures every claimed figure, beside its peer where PyTorch is installed
# make bench   measures the training steps and matrix products of bench/ alone
# make lint    style, types, generated files
# make asan    the tests of the core under AddressSanitizer and UndefinedBehaviorSanitizer
# make tsan    the tests of the thread pool under ThreadSanitizer
# make cuda    compiles the CUDA kernels (no GPU needed) and runs their tests by the emulator
# make gpu-check STAGE=test|sanitize|calibrate|bench|all   what only a GPU can show, see tools/gpu_check.sh
# make wheel   builds a wheel into dist/, with the kernels of all GPU targets where nvcc is found
# make clean   removes everything that these commands make
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Kernels for the GPU that is here, if there is one and nvcc; a wheel has those of all targets.
GPU_TARGETS := --config-settings=cmake.define.$(if $(shell nvidia-smi -L 2>/dev/null),SMELT_CUDA_ARCHITECTURES=native,SMELT_CUDA=OFF)
SOURCES := $(shell find csrc cmake python -type f -not -name '*.pyc' -not -name '*.so') CMakeLists.txt pyproject.toml

.PHONY: demo test claims bench lint asan tsan cuda gpu-check wheel clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One environment; each extra is installed when a command first needs it: dev has all of test, and test all of plot.
$(VENV)/.installed-%: $(BIN)/python $(SOURCES)
	@echo "building, this takes some minutes"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile $(GPU_TARGETS) ".[$*]"
	@touch $@ $(if $(filter dev,$*),$(VENV)/.installed-test) $(if $(filter dev test,$*),$(VENV)/.installed-plot)

demo: $(VENV)/.installed-plot
	$(BIN)/smelt train digits --min-accuracy 0.985

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

claims: $(VENV)/.installed-test
	$(BIN)/python bench/claims.py

bench: $(VENV)/.installed-test
	$(BIN)/python bench/claims.py --only gemm mlp cnn linear

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/make_stubs.py --check
	$(BIN)/python tools/make_api.py --check
	$(BIN)/mypy

asan: $(VENV)/.installed-test
	bash tools/sanitize.sh address,undefined $(BIN)/python

tsan: $(VENV)/.installed-test
	bash tools/sanitize.sh thread $(BIN)/python

cuda: $(VENV)/.installed-test
	bash tools/cuda.sh $(BIN)/python

gpu-check:
	PYTHON=$(PYTHON) bash tools/gpu_check.sh $(or $(STAGE),all)

wheel: $(BIN)/python
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
