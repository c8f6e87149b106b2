#!/usr/bin/env bash
# Set up everything the repository's commands need: .venv with pinned versions, and what rendering and video take.
# Idempotent: a second call only checks a stamp.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stamp=.venv/.tactus-setup
wanted=$(cat pyproject.toml constraints.txt launch/setup.sh | cksum)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

new_enough() { "$1" -c 'import sys, venv; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.12 python3.13 python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null && new_enough "$candidate" && { command -v "$candidate"; return; }
  done
  if command -v uv >/dev/null; then uv python find '>=3.12,<3.14' 2>/dev/null && return; fi
  return 1
}

install_packages() {
  local packages=(libegl1 libgl1-mesa-dri libosmesa6 ffmpeg) missing=() package as_root=()
  command -v dpkg-query >/dev/null || { say "not a Debian system: make sure EGL or OSMesa, and ffmpeg, are installed"; return; }
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo); else
      say "rendering and video need system packages; run: sudo apt-get install ${missing[*]}"
      return
    fi
  fi
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq >/dev/null
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

if [ ! -x .venv/bin/python ] || ! new_enough .venv/bin/python; then
  python=$(find_python) || die "no Python 3.12 or 3.13 found: install one (for instance: uv python install 3.12), or set PYTHON=/path/to/python3.12"
  say "making .venv with $("$python" --version)"
  "$python" -m venv .venv
fi
if command -v uv >/dev/null; then uv=uv; else
  [ -x .venv/bin/uv ] || .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt uv
  uv=.venv/bin/uv
fi
say "installing the packages pinned in constraints.txt (several GB the first time)"
"$uv" pip install -q --python .venv/bin/python -c constraints.txt -e '.[all]'
# for tests: it declares numpy<2 and runs with numpy 2, so that no resolver would take it beside the rest
"$uv" pip install -q --python .venv/bin/python -c constraints.txt --no-deps openpi-client
install_packages
printf '%s' "$wanted" >"$stamp"
say "done"
