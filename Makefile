# Every target sets up the environment first; if nothing changed, that takes under a second.
.DEFAULT_GOAL := help
.PHONY: help setup demo results test lint soak faults bench

# The environment without torch: make demo LIGHT=1.
export LIGHT
ENVIRONMENT := tools/setup.sh && . tools/ros_env.sh
# How many processes, and which tests come first: test/conftest.py.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

help:
	@echo 'make setup            make .venv, with ROS 2 where none is sourced'
	@echo 'make demo [WAV=path]  play a sound file to the nodes: the emotions that a robot would receive'
	@echo '     [BUNDLE=name]     with another model: companion_open, or a path'
	@echo '     [VIEW=1]          again and again, with a page that shows it'
	@echo '     [LIGHT=1]         in an environment without torch, which is made first: 0.4 GB'
	@echo 'make results          render docs/RESULTS.md from docs/results'
	@echo 'make test [ARGS=...]  all tests; ARGS go to pytest'
	@echo 'make lint             ruff'
	@echo 'make soak             an hour of speech at up to ten times real time: memory and losses'
	@echo 'make bench            speed and memory, side by side: docs/PERFORMANCE.md'
	@echo 'make faults           inject faults into real processes: what a robot receives after each'

setup:
	@tools/setup.sh

demo:
	@$(ENVIRONMENT) && python tools/demo.py $(if $(VIEW),--view) $(if $(BUNDLE),--bundle '$(BUNDLE)') $(if $(WAV),'$(WAV)')

results:
	@$(ENVIRONMENT) && python -m ser_ros results

test:
	@$(ENVIRONMENT) && python -m pytest $(PARALLEL) $(ARGS)

soak:
	@$(ENVIRONMENT) && python tools/soak.py $(ARGS)

bench:
	@$(ENVIRONMENT) && python benchmarks/bench.py --out docs/PERFORMANCE.md $(ARGS)

faults:
	@$(ENVIRONMENT) && python tools/faults.py $(ARGS)

lint:
	@$(ENVIRONMENT) && ruff check . && ruff format --check .
