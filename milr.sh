#!/bin/sh
# The milr command of a folder made by `make bundle`. The first call installs it from wheels/; no call needs a network.
# PYTHON names the interpreter (default python3); MILR_RUNS moves the runs out of the folder.
set -e
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -e "$here/.venv/ready" ]; then
  "${PYTHON:-python3}" -m venv "$here/.venv"
  PIP_CONFIG_FILE=/dev/null "$here/.venv/bin/python" -m pip --isolated install --quiet --disable-pip-version-check --no-index --find-links "$here/wheels" 'milr[lab]'
  touch "$here/.venv/ready"
fi
export MILR_DATA="$here/data" MILR_RUNS="${MILR_RUNS:-$here/runs}"
cd "$here/project"
exec "$here/.venv/bin/milr" "$@"
