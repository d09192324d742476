#!/bin/sh
# The milr command of a folder made by `make bundle`; `./milr.sh gpu` is its first hour on a GPU (docs/howto/gpu.md).
# The first call installs what wheels/ holds; no call needs a network.
# PYTHON names the interpreter (default python3); MILR_RUNS moves the runs out of the folder.
set -e
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
install() {
  PIP_CONFIG_FILE=/dev/null "$python" -m pip --isolated install --quiet --disable-pip-version-check --no-index "$@"
}
if [ -e "$here/small" ]; then     # torch and what comes with it are the interpreter's own
  if [ ! -e "$here/site/ready" ]; then
    rm -rf "$here/site"
    install --no-deps --target "$here/site" "$here"/wheels/*.whl
    touch "$here/site/ready"
  fi
  export PYTHONPATH="$here/site"
else
  if [ ! -e "$here/.venv/ready" ]; then
    "$python" -m venv "$here/.venv"
    python="$here/.venv/bin/python"
    install --find-links "$here/wheels" 'milr[lab]' pytest
    touch "$here/.venv/ready"
  fi
  python="$here/.venv/bin/python"
fi
if [ ! -e "$here/data" ]; then
  rm -rf "$here/data.part"
  "$python" -m tarfile -e "$here/data.tar.xz" "$here/data.part"
  mv "$here/data.part" "$here/data"
fi
export MILR_DATA="$here/data" MILR_RUNS="${MILR_RUNS:-$here/runs}"
cd "$here/project"
if [ "${1:-}" = gpu ]; then
  shift
  exec "$python" -c 'from milr.lab.gpu import main; raise SystemExit(main())' "$@"
fi
exec "$python" -m milr "$@"
