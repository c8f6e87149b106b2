#!/usr/bin/env bash
# Everything a change must pass: bash tests/run.sh [pytest arguments]. Sets the repository up first if needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
export HF_HUB_OFFLINE=1 PYTHONPATH="$PWD"
unset PYTHONDONTWRITEBYTECODE # without compiled modules each process that imports LeRobot takes 25 s longer
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --quiet --check .
.venv/bin/python -m pytest "$@"
