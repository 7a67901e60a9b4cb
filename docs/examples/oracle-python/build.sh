#!/bin/sh
# Makes plugins/dno-oracle-arithmetic: one file that holds plugin.py and dno's package for Python, so that one
# checksum covers both. It runs with the interpreter of .venv, which this script makes, and which has grpcio.
set -eu
cd "$(dirname "$0")"
sdk="../../../sdk/python"

if [ ! -x .venv/bin/python ]; then
  "${PYTHON:-python3}" -m venv .venv
  .venv/bin/python -m pip --quiet --disable-pip-version-check install grpcio==1.85.1
fi

rm -rf build
mkdir -p build plugins
cp plugin.py build/__main__.py
mkdir build/dno_sdk
cp "$sdk"/dno_sdk/*.py build/dno_sdk
PYTHONPATH="$sdk" .venv/bin/python -m unittest --quiet
.venv/bin/python -m zipapp build --python "$PWD/.venv/bin/python" --output plugins/dno-oracle-arithmetic
