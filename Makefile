# The project's two commands: `make figures` and `make test`. Both create .venv on first use.
# MILR_DATA (a folder) says where data sets are kept, MILR_CIFAR10 names a folder or archive of CIFAR-10 images.
PYTHON ?= python3
PRESET ?= quick
SEEDS ?=
BIN := .venv/bin

.PHONY: figures test env export readme clean

figures: env
	$(BIN)/milr figures --preset $(PRESET) $(if $(SEEDS),--seeds $(SEEDS))

test: env
	$(BIN)/milr data mnist
	$(BIN)/python -m pytest

env: .venv/ready

.venv/ready: settings.ini setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "milr needs Python 3.11 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

export: env
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean

# README.md is nbs/index.ipynb in Markdown, its links as seen from here.
README ?= README.md
readme:
	$(BIN)/jupyter nbconvert --log-level WARN --to markdown --stdout nbs/index.ipynb \
	| sed -e 's#](\([0-9a-z_/]*\.ipynb\)#](nbs/\1#g' -e 's#](\.\./#](#g' \
	| awk '/^```/ {if (!inside && $$0 == "```") $$0 = "```python"; inside = !inside} 1' > $(README)

clean:
	rm -rf .venv build dist *.egg-info
