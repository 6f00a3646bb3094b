#!/usr/bin/env bash
# What is done on each machine of a run: install the bundle, run the trainer, say how it is. tpu_vm.sh calls this file
# on every worker over ssh, gpu_node.sh on this machine. All of it lives in $RLIF_HOME (default ~/rlif_jax).
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: worker.sh install EXTRA[,EXTRA ...] PYTHON      a virtual environment with the bundle's wheel, at locked versions
       worker.sh run [--restarts=N] --config=FILE --run-dir=DIR [FLAG of rlif_jax.train ...]
       worker.sh revive ...                            the same, unless a run is alive
       worker.sh status [FLAG of that run ...]         bare, idle, alive, stopped, interrupted or ended STATUS;
                                                       with flags: alive-other or idle when the run had others
       worker.sh stop                                  SIGTERM: the trainer saves and ends
       worker.sh log [LINES]                           the log, as it grows
USAGE
}

refuse() {
  printf 'error: %s\n' "$1" >&2
  usage >&2
  exit 2
}

home=${RLIF_HOME:-$HOME/rlif_jax}
bundle=$home/bundle venv=$home/venv state=$home/state log=$home/run.log
export PATH=$HOME/.local/bin:$PATH # where uv's installer puts it

alive() { [ -e "$state/lock" ] && ! flock --nonblock "$state/lock" true; }

install() {
  local wheels=("$bundle"/*.whl)
  [ -e "${wheels[0]}" ] || refuse "$bundle holds no wheel; copy the bundle there first"
  if alive; then refuse "a run is alive on $(hostname); stop it before installing"; fi
  rm -f "$home/installed"
  command -v uv >/dev/null || curl --proto '=https' -LsSf https://astral.sh/uv/install.sh | sh
  rm -rf "$venv"
  uv venv --quiet --python "$2" "$venv"
  uv pip install --quiet --python "$venv/bin/python" --constraint "$bundle/requirements.txt" "${wheels[0]}[$1]"
  touch "$home/installed"
}

run() {
  local restarts=() run_dir='' config='' argument
  if [[ ${1:-} == --restarts=* ]]; then restarts=("$1") && shift; fi
  for argument in "$@"; do
    case $argument in
      --run-dir=*) run_dir=${argument#*=} ;;
      --config=*) config=${argument#*=} ;;
    esac
  done
  [ -n "$config" ] || refuse "--config=FILE is missing"
  [[ $run_dir == /* || $run_dir == gs://* ]] ||
    refuse "--run-dir='$run_dir': give a folder from / on, or in a bucket; the bundle's own is replaced at every setup"
  [ -e "$home/installed" ] || refuse "nothing is installed in $home; run setup first"
  if alive; then refuse "a run is alive on $(hostname) already"; fi
  cd "$bundle"
  mkdir -p "$state"
  rm -f "$state/ended" "$state/pid" "$state/stopped"
  printf '%q ' "$@" >"$state/flags"
  setsid nohup bash until_finished.sh --state="$state" "${restarts[@]}" \
    --progress="$(printf '%q ' "$venv/bin/python" newest_checkpoint.py "$run_dir")" \
    -- "$venv/bin/python" -m rlif_jax.train "$@" >>"$log" 2>&1 </dev/null &
  local _
  for _ in $(seq 100); do
    if [ -e "$state/pid" ]; then echo "$(hostname): started, log in $log" && return; fi
    sleep 0.1
  done
  tail -n 20 "$log" >&2
  exit 1
}

status() {
  local same=yes
  if [ $# -gt 0 ] && [ -e "$state/flags" ] && [ "$(printf '%q ' "$@")" != "$(cat "$state/flags")" ]; then same=''; fi
  if alive; then
    if [ -n "$same" ]; then echo alive; else echo alive-other; fi
  elif [ -z "$same" ]; then
    if [ -e "$home/installed" ]; then echo idle; else echo bare; fi
  elif [ -e "$state/stopped" ]; then
    echo stopped
  elif [ -e "$state/ended" ]; then
    echo "ended $(cat "$state/ended")"
  elif [ -e "$state/pid" ]; then
    echo interrupted # the machine went down under the run
  elif [ -e "$home/installed" ]; then
    echo idle
  else
    echo bare
  fi
}

stop() {
  alive || refuse "no run is alive on $(hostname)"
  touch "$state/stopped"
  kill -TERM "$(cat "$state/pid")"
  while alive; do sleep 0.5; done
  echo "$(hostname): stopped"
}

verb=${1:-}
[ $# -eq 0 ] || shift
case $verb in
  install)
    [ $# -eq 2 ] || refuse "install takes extras and a version of Python, for example tpu,gcs 3.13"
    install "$@"
    ;;
  run) run "$@" ;;
  revive) alive || run "$@" ;;
  status) status "$@" ;;
  stop) stop ;;
  log) tail -n "${1:-100}" -F "$log" ;;
  -h | --help) usage ;;
  *) refuse "${verb:-no verb} is not one of install, run, revive, status, stop, log" ;;
esac
