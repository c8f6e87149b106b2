#!/usr/bin/env bash
# A policy that looks, from nothing: bash launch/train.sh [--minutes=120] [--output_dir=outputs/looks] [--key=value of tactus train …]
# Records the scripted expert and trains on that; then, a round each, records what was trained at work, with its mistakes, has the expert
# say what it would have done there, and trains on with both; at last evaluates on initial states that nobody has recorded and writes the
# training card. What is there is not made again: the same command goes on after an interruption. Its other keys:
#   --rounds=3 of training, which share the minutes    --suites=libero_object,libero_spatial, or twin: the emulated arm
#   --image_size=96: height of the cameras' pictures   --episodes=400 of the expert in each suite, a third as many of the policy's own
#   --held_out=50 episodes to evaluate on, in each
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

refuse() { echo "train.sh: $1" >&2; exit 2; }
minutes=120 rounds=3 output_dir=outputs/looks suites=libero_object,libero_spatial episodes=400 held_out=50 image_size=96 train_keys=()
for argument in "$@"; do
  key=${argument%%=*} value=${argument#*=}
  case $argument in
    -h | --help) sed -n '2,8s/^# //p' "${BASH_SOURCE[0]}"; exit ;;
    --minutes=* | --rounds=* | --episodes=* | --held_out=* | --image_size=*)
      [[ $value =~ ^[1-9][0-9]{0,5}$ ]] || refuse "$key: found $value; accepted: a whole number from 1"
      declare "${key#--}=$value" ;;
    --output_dir=?* | --suites=?*) declare "${key#--}=$value" ;;
    --dataset_root* | --begin_with* | --resume* | --steps*) refuse "$key: decided here; leave it out" ;;
    --*=*) train_keys+=("$argument") ;;
    *) refuse "$argument: not expected; keys are given as --key=value" ;;
  esac
done
output_dir=${output_dir/#\~/$HOME}
IFS=, read -ra suites <<<"$suites"
for suite in "${suites[@]}"; do
  case $suite in
    libero_object | libero_spatial) ;;
    twin) [ ${#suites[@]} -eq 1 ] || refuse "--suites: twin is another robot than LIBERO's; train it by itself" ;;
    *) refuse "--suites: found $suite; accepted: libero_object, libero_spatial, twin, which a script knows" ;;
  esac
done

"$root/launch/setup.sh" || exit 1
mkdir -p "$output_dir" || exit 2
tactus=("$root/.venv/bin/python" -m tactus)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONWARNINGS="${PYTHONWARNINGS:-ignore}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"
trap 'trap "" INT TERM HUP; kill -TERM $(jobs -p) 2>/dev/null; wait; exit 130' INT TERM HUP

listed() { local IFS=,; echo "[$*]"; }

# told: what a recording knows besides, the poses of things, which say more of a picture than actions do
if [ "${suites[0]}" = twin ]; then
  robot=(--robot.type=twin --robot.image_size="[$image_size,$((image_size * 4 / 3))]" --robot.max_steps=600)
  expert=(--policy=picker --policy.vision=false --policy.commit=0) planner=(--policy.pace=arm) noise=(--action_noise=0.02 --action_noise_ticks=5)
  of() { :; }
  recorded() { :; }  # the seed lays the cube down
  own=() held_out_keys=(--seed=1000)
  told='{policy.told_dims: [0, 1, 2], policy.chunk_size: 30, policy.n_action_steps: 15}'
else
  robot=(--robot.image_size="[$image_size,$image_size]")
  expert=(--policy=expert --policy.commit=0) planner=() noise=(--action_noise=0.1 --action_noise_ticks=3)
  of() { echo "--robot.suite=$1"; }
  recorded() { echo "--robot.looks=varied --robot.init_states=$(listed $(seq "$@"))"; }
  own=(--robot.max_steps=200) held_out_keys=(--robot.init_states="$(listed {45..49})")
  told='{policy.told_dims: [0, 1, 2, 7, 8, 9]}'
fi

# record NAME KEYS…: every suite at once, each with a log of its own; a recording is whole, or not there
record() {
  local name=$1 suite to place jobs=() places=()
  shift
  for suite in "${suites[@]}"; do
    to=$output_dir/${name}_$suite
    [ -d "$to" ] && continue
    echo "recording $to (see $to.log)"
    rm -rf "$to.partial" "$to.results"
    OMP_NUM_THREADS=1 bash "$root/launch/sim.sh" record $(of "$suite") "${robot[@]}" "$@" --dataset_video=false \
      --dataset_action=requested --dataset_root="$to.partial" --output_dir="$to.results" >"$to.log" 2>&1 &
    jobs+=("$!") places+=("$to")
  done
  for place in "${!jobs[@]}"; do
    to=${places[place]}
    { wait "${jobs[place]}" && mv "$to.partial" "$to"; } || { tail -n 5 "$to.log" >&2; refuse "$to could not be recorded"; }
  done
}

# planned NAME: recordings with what the expert would do at each frame, added to those that are learned from
planned() {
  local suite to
  for suite in "${suites[@]}"; do
    to=$output_dir/$1_$suite
    [ -d "${to}_relabelled" ] || "${tactus[@]}" relabel --dataset_root="$to" "${expert[@]}" "${planner[@]}" || exit
    recordings+=("${to}_relabelled")
  done
}

recordings=()
record expert "${expert[@]}" --latency=fixed:0 --chunk_size_threshold=1 --successful_only "${noise[@]}" $(recorded 0 39) --episodes="$episodes" --seed=7000
planned expert
[[ " ${train_keys[*]} " == *" --type="* || " ${train_keys[*]} " == *" --lerobot="* ]] || train_keys+=(--lerobot="$told")
checkpoint=
for ((round = 1; round <= rounds; round++)); do
  if [ "$round" -gt 1 ]; then
    # from every other initial state, the others next time
    record "own_$round" --policy.path="$checkpoint" --latency=fixed:2 "${own[@]}" --episodes=$(((episodes + 2) / 3)) \
      $(recorded $((round % 2)) 2 39) --seed=$((7000 + 1000 * round))
    planned "own_$round"
  fi
  folder=$output_dir/round_$round begin=(${checkpoint:+--begin_with="$checkpoint"})
  checkpoint=$folder/training/checkpoints/last/pretrained_model
  if [ -f "$checkpoint/README.md" ]; then continue; fi
  echo "training $folder"
  if [ -d "$checkpoint" ]; then
    "${tactus[@]}" train --output_dir="$folder" --resume || exit
  else
    "${tactus[@]}" train --dataset_root="$(listed "${recordings[@]}")" --minutes="$(awk "BEGIN { print $minutes / $rounds }")" --output_dir="$folder" \
      "${begin[@]}" "${train_keys[@]}" || exit
  fi
done

results=()
for suite in "${suites[@]}"; do
  held=$output_dir/held_out_$suite resume=()
  results+=("$held")
  [ -f "$held/summary.json" ] && continue
  [ -d "$held" ] && resume=(--resume)
  bash "$root/launch/sim.sh" $(of "$suite") "${robot[@]}" "${held_out_keys[@]}" --episodes="$held_out" --policy.path="$checkpoint" --output_dir="$held" \
    "${resume[@]}" || exit
done
"${tactus[@]}" card "$checkpoint" --results="$(listed "${results[@]}")"
