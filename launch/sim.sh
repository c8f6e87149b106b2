#!/usr/bin/env bash
# A policy node and an evaluation, each in its own process, joined by ZeroMQ: bash launch/sim.sh [eval|record] [--key=value …]
# `record` writes the episodes as a LeRobotDataset: bash launch/sim.sh record --dataset_root=outputs/demos --episodes=20
# Sets the repository up first if needed. A policy node that dies is started again. Both processes end with this script, however it ends.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/launch/setup.sh" || exit 1
tactus=("$root/.venv/bin/python" -m runtime.commands)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONWARNINGS="${PYTHONWARNINGS:-ignore}"

command=eval patience_s=20
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
policy_node=
serve() { # returns once it listens, or fails
  : >"$log"
  "${tactus[@]}" serve "${common[@]}" >>"$log" 2>&1 &
  policy_node=$!
  children+=("$policy_node")
  until grep -qs '^policy node: .* at ' "$log"; do
    kill -0 "$policy_node" 2>/dev/null || return 1
    sleep 0.1
  done
}
serve || { cat "$log" >&2; exit 2; }
head -n 1 "$log"

"${tactus[@]}" "$command" "${common[@]}" &
evaluation=$!
children+=("$evaluation")
restarts=3
while true; do
  ended=
  wait -n -p ended "$evaluation" ${policy_node:+"$policy_node"}
  status=$?
  [ "$ended" = "$policy_node" ] || break
  echo "the policy node ended (exit status $status); its last lines:" >&2
  tail -n 20 "$log" >&2
  policy_node=
  [ $restarts -gt 0 ] || continue
  restarts=$((restarts - 1))
  echo "starting it again" >&2
  serve || policy_node=
done
exit "$status"
