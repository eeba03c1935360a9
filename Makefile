# Everything from a fresh machine with Python 3.10-3.12, gcc and cmake; a sourced ROS 2 is used instead.
#   make demo [FRAMES=300]     watch road signs being classified over DDS
#   make test [ROS=kilted]     lint, types and tests
#   make test-jammy            what needs no ROS, with the board's versions of numpy and OpenCV
#   make bench, make soak      measure; see bench/
SHELL := /bin/bash
ROS ?= jazzy
FRAMES ?= 0
ENV = . tools/env.sh $(ROS)

.PHONY: venv torch demo lint test test-jammy bench soak clean

venv:
	@tools/setup_env.sh $(ROS)

demo: venv
	@$(ENV) && python -m repghost_ros.demo --frames $(FRAMES)

# timm wants of torchvision its Python code only, and there is no torchvision without CUDA.
torch: venv
	@$(ENV) && python -c 'import torch' 2>/dev/null || \
	($(ENV) && pip install -qq -r tools/requirements-torch.txt && pip install -qq --no-deps -r tools/requirements-timm.txt)

lint: venv
	@$(ENV) && ruff check . && ruff format --check . && mypy

test: lint torch
	@$(ENV) && pytest

test-jammy:
	python3.10 -m venv .venv-jammy && .venv-jammy/bin/pip install -qq -r tools/requirements-jammy.txt
	.venv-jammy/bin/python -m pytest

bench: venv
	@$(ENV) && python -m bench

soak: venv
	@$(ENV) && python -m bench.soak

clean:
	rm -rf .venv .venv-* build install log *.egg-info
