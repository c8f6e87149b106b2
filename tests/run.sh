#!/usr/bin/env bash
# Everything a change must pass: bash tests/run.sh [pytest arguments]. Sets the repository up first if needed.
# Without an -m of your own the tests marked `long` are not run; bash tests/run.sh -m long runs those.
# The quick loop, two minutes: bash tests/run.sh -m "not slow and not long"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh

# The report is looked at in a real browser; without one those tests are skipped.
if ! command -v chromedriver >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver; } \
    >/dev/null || echo "tests/run.sh: no chromium and chromium-driver to be had; the report is not looked at in a browser" >&2
fi

export HF_HUB_OFFLINE=1 PYTHONPATH="$PWD"
export OMP_NUM_THREADS=1 # tiny models are quickest with one thread, and others' clocks run true
unset PYTHONDONTWRITEBYTECODE # without compiled modules each process that imports LeRobot takes 25 s longer
checked=$(mktemp)
trap 'rm -f "$checked"' EXIT
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --quiet --check .

wanted="not long" others=()
while [ $# -gt 0 ]; do
  case $1 in -m?*) wanted=${1#-m} ;; -m) wanted=${2:?-m: an expression is missing}; shift ;; *) others+=("$1") ;; esac
  shift
done
status=5 # what pytest says where it found no test
# a file at a time to each process, so that fixtures are made once
run_tests() {
  local ended=0
  .venv/bin/python -m pytest --numprocesses="$1" --dist=loadfile -m "($wanted) and $2" "${others[@]}" || ended=$?
  case $ended:$status in 5:*) ;; *:5 | *:0) status=$ended ;; esac
}

nice -n 19 .venv/bin/pyright >"$checked" 2>&1 &
types=$!
run_tests 2 "not realtime"
wait "$types" || { cat "$checked" >&2; [ "$status" -ne 0 ] && [ "$status" -ne 5 ] || status=1; }
# what happens in real time has the machine to itself; four at once, because it waits more than it computes
run_tests 4 realtime
exit "$status"
