#!/usr/bin/env bash
# A policy node and an evaluation, each in its own process, joined by ZeroMQ: bash launch/sim.sh [eval|record] [--key=value …]
# `record` writes the episodes as a LeRobotDataset: bash launch/sim.sh record --dataset_root=outputs/demos --episodes=20
# Sets the repository up first if needed. A policy node that dies is started again. Both processes end with this script, however it ends.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/launch/setup.sh" || exit 1
source "$root/launch/nodes.sh"

command=eval
case ${1:-} in eval | record) command=$1; shift ;; esac
[ "$command" = record ] && patience_s=60  # an interrupted recording makes its files whole

for argument in "$@"; do
  case $argument in -h | --help) "${tactus[@]}" "$command" --config_path "$root/launch/sim.yaml" --help; exit ;; esac
done

keys=(--config_path "$root/launch/sim.yaml" --connect="$endpoint" --policy_timeout_s=3600)
looks=libero last=()  # whose policy that looks is played, through pictures of its own size: the one that ships, where no other is named
for argument in "$@"; do
  case $argument in
    --policy=learned | --policy.type=learned | --robot=libero | --robot.type=libero) ;;
    --robot=twin | --robot.type=twin) looks=${looks:+twin} ;;
    --policy=* | --policy.type=* | --policy.path=* | --robot=* | --robot.type=* | --config_path*) looks= ;;
  esac
done
case $looks in
  libero) keys+=(--robot.image_size=[96,96]) ;;
  twin) keys+=(--robot.image_size=[96,128]) last=(--policy.type=learned_so101) ;;
esac
keys+=("$@" "${last[@]}")
run_beside_policy_node "${tactus[@]}" "$command" --beside=serve "${keys[@]}"; exit  # this file may be another by then
