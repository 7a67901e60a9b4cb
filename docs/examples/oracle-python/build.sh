#!/bin/sh
# Makes plugins/dno-oracle-arithmetic: one file that holds plugin.py and dno's package for Python, so that one
# checksum covers both. It runs with the interpreter of .venv, which this script makes, and which has grpcio.
set -eu
cd "$(dirname "$0")"
sdk="../../../sdk/python"

case $PWD in *[[:space:]]*)
  echo "build.sh: the name of $PWD has a space, which the first line of a program cannot have: move it" >&2
  exit 2
esac
if ! .venv/bin/python -c 'import grpc' 2>/dev/null; then
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
  .venv/bin/python -m pip --quiet --disable-pip-version-check install grpcio==1.80.1 # the last for Python 3.9
fi

rm -rf build
mkdir -p build plugins
cp plugin.py build/__main__.py
mkdir build/dno_sdk
cp "$sdk"/dno_sdk/*.py build/dno_sdk
PYTHONPATH="$sdk" .venv/bin/python -B -m unittest --quiet
find build -exec touch -t 200001010000 {} + # the same sources give the same program, and checksum
.venv/bin/python -m zipapp build --python "$PWD/.venv/bin/python" --output plugins/dno-oracle-arithmetic
