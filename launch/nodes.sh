# Sourced by the launch scripts: the processes of a run, started, watched and ended together.
# Expects root; gives tactus, scratch, children, start_policy_node and watch. A policy node that dies is started again.

tactus=("$root/.venv/bin/python" -m tactus)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONWARNINGS="${PYTHONWARNINGS:-ignore}"

patience_s=20
scratch=$(mktemp -d)
endpoint=ipc://$scratch/policy_node
children=()
finish() {
  local child index
  trap '' INT TERM HUP
  # the last one started is the first to end, so that a robot parks while its twin is still there
  for ((index = ${#children[@]} - 1; index >= 0; index--)); do
    child=${children[index]}
    kill -TERM "$child" 2>/dev/null
    for _ in $(seq $((patience_s * 10))); do kill -0 "$child" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$child" 2>/dev/null
  done
  rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# start LOG PATTERN COMMAND…: in the background; returns once PATTERN stands in its log, or fails. Its id is in $started.
start() {
  local log=$1 pattern=$2
  shift 2
  : >"$log"
  "$@" >>"$log" 2>&1 &
  started=$!
  children+=("$started")
  await "$started" "$log" "$pattern"
}

# await PROCESS LOG PATTERN [OTHER]: until PATTERN stands in LOG; fails if PROCESS ends, or OTHER does.
await() {
  until grep -qs "$3" "$2"; do
    kill -0 "$1" 2>/dev/null || { grep -qs "$3" "$2"; return; }
    [ -z "${4:-}" ] || kill -0 "$4" 2>/dev/null || return 1
    sleep 0.1
  done
}

policy_log=$scratch/policy_node.log
policy_loads='^policy node: loading \|"tactus.policy_node".*"loading '
policy_ready='^policy node: .* at \|"tactus.policy_node".* at '
policy_node=
start_policy_node() { # PATTERN KEYS…: up to PATTERN in its log; KEYS: the command's, of which it takes its own
  local pattern=$1
  shift
  policy_keys=("$@")
  start "$policy_log" "$pattern" "${tactus[@]}" serve --beside="$command" "$@" || return 1
  policy_node=$started
}

no_policy() {
  grep -v "$policy_loads" "$policy_log" >&2
  exit 2
}

# run_beside_policy_node COMMAND…: its robot is made while the policy loads; a policy that cannot be had ends both.
# The keys have been read before COMMAND starts, so that what is wrong with them is said once.
run_beside_policy_node() {
  start_policy_node "$policy_loads" "${keys[@]}" || no_policy
  "$@" <&0 &
  local robot=$!
  children+=("$robot")
  if await "$policy_node" "$policy_log" "$policy_ready" "$robot"; then
    grep -m 1 "$policy_ready" "$policy_log"
  elif ! kill -0 "$policy_node" 2>/dev/null; then
    kill -TERM "$robot" 2>/dev/null
    wait "$robot" 2>/dev/null
    no_policy
  fi
  watch "$robot"
}

# watch PROCESS: waits for it and returns its status; starts the policy node again if that ends meanwhile.
watch() {
  local ended status restarts=3
  while true; do
    ended=
    wait -n -p ended "$1" ${policy_node:+"$policy_node"}
    status=$?
    [ "$ended" = "$policy_node" ] && [ -n "$policy_node" ] || return "$status"
    echo "the policy node ended (exit status $status); its last lines:" >&2
    tail -n 20 "$policy_log" >&2
    policy_node=
    [ $restarts -gt 0 ] || continue
    restarts=$((restarts - 1))
    echo "starting it again" >&2
    start_policy_node "$policy_ready" "${policy_keys[@]}" || policy_node=
  done
}
