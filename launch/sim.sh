#!/usr/bin/env bash
# A policy node and an evaluation, each in its own process, joined by ZeroMQ: bash launch/sim.sh [eval|record] [--key=value …]
# `record` writes the episodes as a LeRobotDataset: bash launch/sim.sh record --dataset_root=outputs/demos --episodes=20
# Sets the repository up first if needed. Both processes end with this script, however it ends.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/launch/setup.sh" || exit 1
tactus=("$root/.venv/bin/python" -m runtime.commands)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONWARNINGS="${PYTHONWARNINGS:-ignore}"

command=eval patience_s=5
case ${1:-} in eval | record) command=$1; shift ;; esac
[ "$command" = record ] && patience_s=60  # an interrupted recording makes its files whole

for argument in "$@"; do
  case $argument in -h | --help) exec "${tactus[@]}" "$command" --config_path "$root/launch/sim.yaml" --help ;; esac
done

scratch=$(mktemp -d)
children=()
finish() {
  local child
  trap '' INT TERM HUP
  for child in "${children[@]}"; do kill -TERM "$child" 2>/dev/null; done
  for child in "${children[@]}"; do
    for _ in $(seq $((patience_s * 10))); do kill -0 "$child" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$child" 2>/dev/null
  done
  rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

log=$scratch/policy_node.log
common=(--config_path "$root/launch/sim.yaml" --connect="ipc://$scratch/policy_node" "$@")
"${tactus[@]}" serve "${common[@]}" >"$log" 2>&1 &
policy_node=$!
children+=("$policy_node")
until grep -qs '^policy node: .* at ' "$log"; do
  if ! kill -0 "$policy_node" 2>/dev/null; then
    cat "$log" >&2
    exit 2
  fi
  sleep 0.1
done
head -n 1 "$log"

"${tactus[@]}" "$command" "${common[@]}" &
evaluation=$!
children+=("$evaluation")
wait "$evaluation"
status=$?
if ! kill -0 "$policy_node" 2>/dev/null; then
  echo "the policy node ended early; its last lines:" >&2
  tail -n 20 "$log" >&2
fi
exit "$status"
