#!/usr/bin/env bash
# Train on the GPUs of this machine: driver check, virtual environment, and the trainer under until_finished.sh.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: gpu_node.sh setup [--file=FILE ...]             check the driver; build and install the wheel with jax[cuda13]
       gpu_node.sh run --config=FILE --run-dir=DIR [FLAG of rlif_jax.train ...]
       gpu_node.sh status | logs | stop

  --file=FILE   one more file beside the configurations, such as the problems (may be repeated)
  --dry-run     print the commands instead of running them, one a line

Everything goes to $RLIF_HOME (default ~/rlif_jax). A training gets 0.9 of the GPUs' memory, or what
XLA_CLIENT_MEM_FRACTION says; its older name XLA_PYTHON_CLIENT_MEM_FRACTION must not be set.
USAGE
}

refuse() {
  printf 'error: %s\n' "$1" >&2
  usage >&2
  exit 2
}

# shellcheck source=launch/bundle.sh
source "$(dirname "$0")/bundle.sh"
oldest_driver=580 # of CUDA 13
home=${RLIF_HOME:-$HOME/rlif_jax}
worker=$home/bundle/worker.sh

check_driver() {
  local query=(nvidia-smi "--query-gpu=name,driver_version" "--format=csv,noheader") found line driver
  if [ -n "$dry_run" ]; then quoted "${query[@]}" && return; fi
  found=$("${query[@]}") || refuse "nvidia-smi fails; install NVIDIA's driver $oldest_driver or newer"
  while read -r line; do
    driver=${line##*, }
    [[ $driver =~ ^[0-9]+ ]] || refuse "nvidia-smi says '$line', which names no driver"
    [ "${BASH_REMATCH[0]}" -ge "$oldest_driver" ] ||
      refuse "driver $driver is too old for CUDA 13; install $oldest_driver or newer"
  done <<<"$found"
}

verb=${1:-}
[ $# -eq 0 ] || shift
arguments=()
for argument in "$@"; do
  case $argument in
    --dry-run) dry_run=yes ;;
    --file=*) add_file "${argument#*=}" ;;
    --run-dir=gs://*) arguments+=("$argument") ;;
    --run-dir=?*) arguments+=("--run-dir=$(realpath --canonicalize-missing "${argument#*=}")") ;;
    *) arguments+=("$argument") ;;
  esac
done
[ "$verb" = run ] || [ ${#arguments[@]} -eq 0 ] || refuse "${arguments[0]} is not a flag of gpu_node.sh $verb"

case $verb in
  setup)
    check_driver
    cd "$root"
    if [ -z "$dry_run" ] && [ "$(bash "$worker" status 2>/dev/null)" = alive ]; then
      refuse "a run is alive in $home; stop it before setup, which would take its folder away"
    fi
    build_bundle "$home/bundle" cuda,gcs
    call bash "$worker" install cuda,gcs "$python_version"
    ;;
  run)
    [ -z "${XLA_PYTHON_CLIENT_MEM_FRACTION:-}" ] ||
      refuse "XLA_PYTHON_CLIENT_MEM_FRACTION=$XLA_PYTHON_CLIENT_MEM_FRACTION is set; call it XLA_CLIENT_MEM_FRACTION"
    [[ " ${arguments[*]} " == *" --config="* ]] || refuse "--config=FILE is missing"
    [[ " ${arguments[*]} " == *" --run-dir="* ]] || refuse "--run-dir=DIR is missing"
    call export "XLA_CLIENT_MEM_FRACTION=${XLA_CLIENT_MEM_FRACTION:-0.9}"
    call bash "$worker" run "${arguments[@]}"
    ;;
  status | stop) call bash "$worker" "$verb" ;;
  logs) call bash "$worker" log ;;
  -h | --help) usage ;;
  *) refuse "${verb:-no verb} is not one of setup, run, status, logs, stop" ;;
esac
