# The project's two commands: `make figures` and `make test`. Both create .venv on first use.
# MILR_DATA (a folder) says where data sets are kept, MILR_CIFAR10 names a folder or archive of CIFAR-10 images.
# Without compiled modules on disk every process would compile torch anew, some seconds each.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
PRESET ?= quick
SEEDS ?=
BIN := .venv/bin

.PHONY: gpu figures queue ruler development lab check test test-oldest faults coverage env export readme docs package bundle clean

figures: .venv/ready
	$(BIN)/milr figures --preset $(PRESET) $(if $(SEEDS),--seeds $(SEEDS))

test: env
	$(BIN)/milr data mnist
	$(BIN)/python -m pytest

# A part of `make test` for every commit: form, types, imports, records and the core's numbers, without the notebooks' runs.
CHECKED := style typing structure project records golden policy mi scheduler
check: env
	$(BIN)/python -m pytest $(CHECKED:%=tests/test_%.py) -k "not notebook_runs and not figure_runs"

# JupyterLab on the notebooks, in the environment of authors.
lab: env
	$(BIN)/jupyter lab nbs

# The runs of the protocol that have no record yet, one after the other, when nothing else wants the core. Records go into RECORDS.
# They are computed on the CPU unless DEVICE is given (make queue DEVICE=cuda), here and in the next two.
on = $(if $(filter file,$(origin DEVICE)),,$(comma) device="$(DEVICE)")
comma := ,
RECORDS ?= figures/runs
queue: .venv/ready
	nice -n 19 $(BIN)/python -c 'from milr.lab.protocol import work; print(work("$(RECORDS)"$(on)), "runs recorded")'

# The same for the comparison of schedules (nbs/lab/21_ruler.ipynb), which needs the rivals' packages. Records go into TRIALS.
TRIALS ?= figures/ruler
ruler: .venv/ready
	$(install) '.[schedules]'
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -c 'from milr.lab.ruler import work; print(work("$(TRIALS)"$(on)), "runs recorded")'

# The runs of nbs/lab/30_development.ipynb that have no record yet, minutes of a core.
development: .venv/ready
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -c 'from milr.lab.development import planned_runs; from milr.lab.ruler import work; print(work("figures/development", entries=planned_runs$(on)), "runs recorded")'

# What is drawn and said from records, anew: the reproduction study, Figures 3 to 6 at narrow, the README.
pages: env
	$(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --inplace nbs/00_paper.ipynb nbs/lab/15_claims.ipynb nbs/lab/25_answers.ipynb nbs/studies/reproduction.ipynb nbs/studies/heldout.ipynb nbs/index.ipynb
	for figure in fig3 fig4 fig5 fig6; do $(BIN)/milr figure $$figure --preset narrow --from-records $(RECORDS) || true; done
	$(BIN)/nbdev_clean
	$(MAKE) readme

# Everything that is broken on purpose, the long versions too (about half an hour), counted for nbs/studies/faults.ipynb.
faults: env
	rm -f tests/faults.jsonl
	MILR_SLOW=1 MILR_FAULTS=$(CURDIR)/tests/faults.jsonl $(BIN)/python -m pytest -n 0 tests/test_faults_estimator.py tests/test_faults_networks.py tests/test_faults_files.py tests/test_data.py

# Branch coverage of milr/ by all tests and notebooks, and of the compiled kernels as plain Python by the tests that are small enough.
coverage: env
	$(BIN)/coverage erase
	NUMBA_DISABLE_JIT=1 $(BIN)/coverage run -m pytest -n 0 tests/test_mi.py -k "every_path or ksg_on_ties or small_classes or determined"
	$(BIN)/milr data mnist
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# .venv/ready has what figures need; .venv/dev also what authors need, the integrations' libraries among it.
env: .venv/dev

# The pip that Python brings may be years old, and then takes three times as long to find out what fits together.
install := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable
.venv/ready: settings.ini setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "milr needs Python 3.11 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25'
	$(install) '.[lab]'
	touch $@

.venv/dev: .venv/ready
	$(install) '.[dev]'
	test ! -e .git || git config --get core.hooksPath > /dev/null || git config core.hooksPath .githooks
	touch $@

# Check, measure and draw on a GPU, into figures/gpu; ends after MINUTES, goes on when called again. Rehearsal: make gpu DEVICE=cpu PRESET=smoke
DEVICE ?= cuda
PART ?=
MINUTES ?= 9
gpu: env
	$(BIN)/python -c 'from milr.lab.gpu import main; raise SystemExit(main())' --minutes $(MINUTES) --device $(DEVICE) --preset $(if $(filter file,$(origin PRESET)),paper,$(PRESET)) $(if $(PART),--part $(PART))

export: env
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean

# README.md is nbs/index.ipynb in Markdown, its links as seen from here.
README ?= README.md
readme:
	$(BIN)/jupyter nbconvert --log-level WARN --to markdown --stdout --CoalesceStreamsPreprocessor.enabled=True --TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_input_tags remove-input nbs/index.ipynb \
	| sed -e 's#](\([0-9a-z_/]*\.ipynb\)#](nbs/\1#g' -e 's#](\.\./#](#g' \
	| awk '/^```/ {if (!inside && $$0 == "```") $$0 = "```python"; inside = !inside} 1' > $(README)

# One folder that installs and runs `milr figures` without a network: wheels, the data found here, and the project as committed.
# Another Python or machine: make bundle PYTHON_VERSION=3.12 PLATFORM="manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64" CONSTRAINTS=
# Another build of torch: PIP_ARGS="--index-url ..." of the index that has it. On Linux the usual index gives the CUDA build, some gigabytes.
# The smallest, for a machine that has torch: make bundle SMALL=1, without the wheels named in bundle.py, and of data MNIST and what MILR_CIFAR10 names.
BUNDLE ?= build/bundle
SMALL ?=
PLATFORM ?=
PYTHON_VERSION ?=
CONSTRAINTS ?= constraints.txt
PIP_ARGS ?=
target := $(if $(PYTHON_VERSION),--python-version $(PYTHON_VERSION)) $(foreach p,$(PLATFORM),--platform $(p))
fetch := $(BIN)/python -m pip download --quiet --dest $(BUNDLE)/wheels --only-binary=:all: $(target) $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) $(PIP_ARGS)
bundle: env
	test ! -e $(BUNDLE) || { echo "$(BUNDLE) is there already; remove it, or name another with BUNDLE="; exit 1; }
	mkdir -p $(BUNDLE)/wheels $(BUNDLE)/data $(BUNDLE)/project
	git archive HEAD | tar -x -C $(BUNDLE)/project
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(BUNDLE)/wheels $(BUNDLE)/project
	rm -rf $(BUNDLE)/project/build $(BUNDLE)/project/*.egg-info
	$(BIN)/milr data mnist
	$(if $(SMALL),$(fetch) --no-deps $$($(BIN)/python bundle.py $(PYTHON_VERSION)),$(fetch) "$$(ls $(BUNDLE)/wheels/milr-*.whl)[lab]" pytest)
	cd "$${MILR_DATA:-$$HOME/.cache/milr/data}" && cp -R $(if $(SMALL),MNIST,.) $(abspath $(BUNDLE))/data
	test -z "$$MILR_CIFAR10" || cp -R "$$MILR_CIFAR10" $(BUNDLE)/data/cifar10-jpeg$$(test -d "$$MILR_CIFAR10" || echo .tar.xz)
	$(if $(SMALL),touch $(BUNDLE)/small && cd $(BUNDLE)/data && $(abspath $(BIN))/python -m tarfile -c ../data.tar.xz * && rm -r ../data)
	cp milr.sh $(BUNDLE)
	@echo "take $(BUNDLE) along; there: ./milr.sh figures, or ./milr.sh gpu"

# The documentation site, in _docs: no warning is let through, every link is followed, every page looked at in a browser (where there is one).
DOCS := .venv-docs/bin
docs: .venv-docs/ready
	$(DOCS)/python docs/stage.py
	NO_MKDOCS_2_WARNING=1 $(DOCS)/mkdocs build --strict --clean
	$(DOCS)/python docs/links.py _docs
	$(DOCS)/python docs/browser.py _docs

.venv-docs/ready: settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv-docs
	$(DOCS)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt $$($(PYTHON) -c 'from configparser import ConfigParser as C; c = C(delimiters=["="]); c.read("settings.ini"); print(c["DEFAULT"]["docs_requirements"])')
	touch $@

# A wheel and an sdist, in dist, with a page that a package index can show.
package: env
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# The test command with the oldest torch that is supported, in an environment of its own. On Linux the index has this torch with CUDA only, some gigabytes.
OLDEST := torch==2.6.0 torchvision==0.21.0
test-oldest: .venv-oldest/ready
	.venv-oldest/bin/milr data mnist
	.venv-oldest/bin/python -m pytest

.venv-oldest/ready: settings.ini setup.py
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --no-compile --disable-pip-version-check $(OLDEST) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-docs .venv-oldest build dist _docs *.egg-info
