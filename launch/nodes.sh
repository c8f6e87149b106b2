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
  until grep -qs "$pattern" "$log"; do
    kill -0 "$started" 2>/dev/null || return 1
    sleep 0.1
  done
}

policy_log=$scratch/policy_node.log
policy_node=
start_policy_node() { # KEYS…: the command's, of which it takes its own
  policy_keys=("$@")
  start "$policy_log" '^policy node: .* at \|"tactus.policy_node".* at ' "${tactus[@]}" serve --beside="$command" "$@" || return 1
  policy_node=$started
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
    start_policy_node "${policy_keys[@]}" || policy_node=
  done
}
