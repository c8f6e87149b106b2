#!/usr/bin/env bash
# An arm, its cameras and a policy: bash launch/so100.sh [run|record|teleop|replay|doctor] --robot.parts.arm.port=/dev/ttyACM0 [--key=value …]
# --policy=learned: the policy that ships and looks, through both cameras at 128x96; it learned on the emulated table alone.
# --emulated: the same path onto an emulated arm: serial ports, camera streams, a table, a cube and a bin behind them.
# --config_path launch/koch.yaml: another arm. `record` needs --dataset_root=DIR. Sets the repository up first if needed.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/launch/setup.sh" || exit 1
source "$root/launch/nodes.sh"

command=run emulated= looks= config=$root/launch/so100.yaml
case ${1:-} in run | record | teleop | replay | doctor) command=$1; shift ;; esac
[ "$command" = record ] || [ "$command" = teleop ] && patience_s=60  # an interrupted recording makes its files whole
given=()
while [ $# -gt 0 ]; do
  case $1 in
    --emulated) emulated=yes ;;
    --config_path) config=$2; shift ;;
    --config_path=*) config=${1#*=} ;;
    --policy=learned | --policy.type=learned) looks=yes; given+=(--policy=learned_so101) ;;
    -h | --help) "${tactus[@]}" "$command" --config_path "$config" --help; exit ;;
    *) given+=("$1") ;;
  esac
  shift
done

keys=(--config_path "$config" --connect="$endpoint")
[ "$command" = record ] && keys+=(--real_time=true)
twin_keys=()
if [ "$looks" ]; then
  keys+=(--robot.parts.{top,wrist}.width=128 --robot.parts.{top,wrist}.height=96)
  twin_keys=(--cameras.width=128 --cameras.height=96)
fi
if [ "$emulated" ]; then
  twin_log=$scratch/twin.log
  # in a session of its own, so that Ctrl-C does not end it before the arm has parked
  start "$twin_log" '^twin: ready' setsid "${tactus[@]}" twin --folder="$scratch/twin" --config_path="${config%.yaml}.twin.yaml" "${twin_keys[@]}" ||
    { cat "$twin_log" >&2; exit 2; }
  grep -v '^twin: ready' "$twin_log"
  mapfile -t rig_keys <"$scratch/twin/robot.keys"
  keys+=("${rig_keys[@]}")
fi
keys+=("${given[@]}")

if [ "$command" = run ] || [ "$command" = record ]; then
  keys=(--policy_timeout_s=3600 "${keys[@]}")
  run_beside_policy_node "${tactus[@]}" "$command" --beside=serve "${keys[@]}"
else
  "${tactus[@]}" "$command" --beside=serve "${keys[@]}" <&0 &  # keys are read from this terminal
  children+=("$!")
  watch "$!"
fi; exit  # this file may be another by then
