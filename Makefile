# make demo   find and score the cells of examples/ocelot, in an environment of its own (.venv); no PyTorch
# make test   the fast tests, in .venv-test; make test ARGS="-m slow" for others
# make lint   ruff, mypy and the layers of imports, in .venv-test
# make lock   pin the images' packages anew (UPGRADE=1: newest ones)
# make clean  remove what the other targets made

# Another Python than the first that fits: make demo PYTHON=/path/to/python3.12
PYTHON ?=
# Kept out of reach: a Python path or a user's packages would make another program of this one.
export PYTHONPATH =
export PYTHONNOUSERSITE = 1
NEW_VENV = python=$$(scripts/find_python.sh $(PYTHON)) && "$$python" -m venv
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint lock clean

demo: .venv/.done
	@.venv/bin/python scripts/demo.py

test: .venv-test/.done
	.venv-test/bin/python -m pytest $(ARGS)

lint: .venv-test/.done
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy
	.venv-test/bin/lint-imports --no-logo

lock: .venv-lock/.done
	UV=.venv-lock/bin/uv scripts/lock.sh

clean:
	rm -rf .venv .venv-test .venv-lock demo-output build src/softctm.egg-info
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src test benchmarks scripts -name __pycache__ -prune -exec rm -rf {} +

# The stamps are written last: an interrupted set-up is taken up again, and a changed lock is followed.
.venv/.done: requirements-cpu.txt pyproject.toml
	@echo "setting up .venv (once)"
	@$(NEW_VENV) .venv
	.venv/bin/python $(PIP_INSTALL) --require-hashes --only-binary :all: --requirement requirements-cpu.txt
	.venv/bin/python $(PIP_INSTALL) --no-deps --editable .
	@touch $@

# PyTorch and torchvision must come in one command, or pip may pair builds that do not belong together.
.venv-test/.done: requirements-cpu.txt pyproject.toml
	@echo "setting up .venv-test, with PyTorch for the training's tests (once)"
	@$(NEW_VENV) .venv-test
	.venv-test/bin/python $(PIP_INSTALL) --require-hashes --only-binary :all: --requirement requirements-cpu.txt
	.venv-test/bin/python $(PIP_INSTALL) --editable '.[dev,report,train,slides,cluster,embeddings]'
	@touch $@

.venv-lock/.done:
	@$(NEW_VENV) .venv-lock
	.venv-lock/bin/python $(PIP_INSTALL) 'uv>=0.8'
	@touch $@
