#!/usr/bin/env bash
# Train on a Cloud TPU slice of any number of hosts: make it, install the same wheel everywhere, run, look, delete.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: tpu_vm.sh VERB --name=NAME --zone=ZONE [FLAG ...]

  create   make the slice                --topology=v5e:4x4 or --type=v5litepod-16
  setup    build one wheel here, install it on all workers
  run      start the trainer on all workers: run ... --config=FILE --run-dir=gs://... [FLAG of rlif_jax.train ...]
           --config and all that follows go to the trainer
  status   the state of the slice, and of the run on each worker
  logs     the log of a worker, as it grows (Ctrl-C leaves the run alone)
  ssh      a shell on a worker
  stop     SIGTERM to the run on all workers: it saves and ends
  delete   delete the slice

  --project=ID            the cloud project (default: gcloud's)
  --topology=KIND:SHAPE   of v4, v5e, v5p or v6e, as rlif_jax.plan takes it
  --type=TYPE             Google's name of the slice, in place of --topology
  --version=VERSION       the image of the workers (default: the one for the type)
  --spot                  cheap, and may be taken away
  --queued                wait in Google's queue for the slice (a queued resource); give it to every verb
  --service-account=MAIL  the account that the workers use
  --gcloud-flag=FLAG      one more flag for gcloud's create command (may be repeated)
  --file=FILE             setup: one more file beside the configurations, such as the problems (may be repeated)
  --worker=N              logs, ssh: the worker (default 0)
  --keep                  run: stay, and make the slice anew when it is taken away, until the run is finished; makes it
                          in the first place, too, so give it the flags of create
  --poll=SECONDS          --keep: how often to look (default 60)
  --delete-after          --keep: delete the slice when the run is finished
  --dry-run               print the commands instead of running them, one a line
USAGE
}

refuse() {
  printf 'error: %s\n' "$1" >&2
  usage >&2
  exit 2
}

say() { printf '%s tpu_vm: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" >&2; }

# shellcheck source=launch/bundle.sh
source "$(dirname "$0")/bundle.sh"
name='' zone='' type='' topology='' version='' spot='' queued='' keep='' delete_after='' worker=0 poll=60
project=() extra=() train=()
remote=rlif_jax # below the home folder of each worker
bundle='' notes='' # of this slice, on this machine

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --name=*) name=${1#*=} ;;
      --zone=*) zone=${1#*=} ;;
      --project=*) project=("$1") ;;
      --type=*) type=${1#*=} ;;
      --topology=*) topology=${1#*=} ;;
      --version=*) version=${1#*=} ;;
      --spot) spot=yes ;;
      --queued) queued=yes ;;
      --service-account=*) extra+=("$1" --scopes=https://www.googleapis.com/auth/cloud-platform) ;;
      --gcloud-flag=*) extra+=("${1#*=}") ;;
      --file=*) add_file "${1#*=}" ;;
      --worker=*) worker=${1#*=} ;;
      --keep) keep=yes ;;
      --poll=*) poll=${1#*=} ;;
      --delete-after) delete_after=yes ;;
      --dry-run) dry_run=yes ;;
      --config=*) break ;;
      *) refuse "$1 is not a flag of tpu_vm.sh; the trainer's flags come after --config=FILE" ;;
    esac
    shift
  done
  local argument
  for argument in "$@"; do
    if [ "$argument" = --dry-run ]; then dry_run=yes; else train+=("$argument"); fi
  done
  [[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || refuse "--name='$name': give lower-case letters, digits and dashes"
  [ -n "$zone" ] || refuse "--zone=ZONE is missing"
  [[ $worker =~ ^([0-9]+|all)$ ]] || refuse "--worker=$worker is neither a number nor all"
  [[ $poll =~ ^[0-9]+$ ]] || refuse "--poll=$poll is not a whole number of seconds"
  bundle=dist/launch/$name/bundle notes=dist/launch/$name
}

# Google's name of a slice counts chips for v5e and v6e, and cores, two a chip, for v4 and v5p.
resolve_type() {
  local kind=${topology%%:*} shape=${topology#*:} chips=1 side
  [ -z "$type" ] || [ -z "$topology" ] || refuse "give either --type or --topology"
  if [ -n "$topology" ]; then
    [[ $topology =~ ^v[0-9a-z]+:[0-9]+(x[0-9]+)+$ ]] || refuse "--topology=$topology is not of the form v5e:4x4"
    for side in ${shape//x/ }; do chips=$((chips * side)); done
    case $kind in
      v5e) type=v5litepod-$chips ;;
      v6e) type=v6e-$chips ;;
      v4 | v5p) type=$kind-$((2 * chips)) ;;
      *) refuse "--topology=$topology: $kind is not one of v4, v5e, v5p, v6e; use --type" ;;
    esac
  fi
  [ -n "$type" ] || refuse "--topology=KIND:SHAPE is missing, for example --topology=v5e:4x4"
  case ${version:-$type} in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    v2-[0-9]* | v3-[0-9]* | v4-[0-9]*) version=tpu-ubuntu2204-base ;;
  esac
  [ -n "$version" ] || refuse "--version=VERSION is missing: the image for --type=$type is not known here"
}

tpus() { # VERB OF tpu-vm OR queued-resources, its words
  local group=$1 verb=$2
  shift 2
  call gcloud compute tpus "$group" "$verb" "$@" --zone="$zone" "${project[@]}"
}

on_workers() { # COMMAND, WORKER
  tpus tpu-vm ssh "$name" --worker="${2:-all}" --command="$1"
}

create() {
  local flags=(--accelerator-type="$type" ${spot:+--spot} "${extra[@]}")
  if [ -n "$queued" ]; then
    tpus queued-resources create "$name" --node-id="$name" --runtime-version="$version" "${flags[@]}"
  else
    tpus tpu-vm create "$name" --version="$version" "${flags[@]}"
  fi
}

delete() {
  if [ -n "$queued" ]; then
    tpus queued-resources delete "$name" --force --quiet
  else
    tpus tpu-vm delete "$name" --quiet
  fi
}

build() { build_bundle "$bundle" tpu,gcs x86_64-manylinux_2_35; }

install() { # not below a run, whose folder it would take away
  local alive="[ \"\$(bash $remote/bundle/worker.sh status 2>/dev/null)\" = alive ]"
  local refusal="echo 'error: a run is alive; stop it before setup' >&2; exit 2"
  on_workers "if $alive; then $refusal; fi; rm -rf $remote/bundle && mkdir -p $remote" &&
    tpus tpu-vm scp --recurse "$bundle" "$name:$remote/" --worker=all &&
    on_workers "$(on_worker_sh install tpu,gcs "$python_version")"
}

on_worker_sh() { # what worker.sh is to do, its words
  quoted bash "$remote/bundle/worker.sh" "$@"
}

start() { on_workers "$(on_worker_sh "$1" "${train[@]}")"; } # run OR revive

# In shell: how the run is, also where nothing is installed.
ask() { echo "if [ -e $remote/bundle/worker.sh ]; then $(on_worker_sh status "$@"); else echo bare; fi"; }

check_train() {
  local argument run_dir='' config=''
  for argument in "${train[@]}"; do
    case $argument in
      --run-dir=*) run_dir=${argument#*=} ;;
      --config=*) config=${argument#*=} ;;
    esac
  done
  [ -n "$config" ] || refuse "--config=FILE is missing"
  [[ $run_dir == gs://* ]] ||
    refuse "--run-dir='$run_dir': give a folder in a bucket, gs://BUCKET/FOLDER, after --config"
  for argument in "${files[@]}"; do
    [ ! -d "$bundle" ] || diff -rq "$argument" "$bundle/$(basename "$argument")" >/dev/null 2>&1 ||
      refuse "--file=$argument is not in the bundle of setup, or was changed since; run setup again with it"
  done
  [ ! -d "$bundle" ] || [ -e "$bundle/$config" ] ||
    refuse "--config=$config is not in the bundle of setup; run setup again, with --file=$config unless in configs/"
}

listed() { # tpu-vm OR queued-resources, FIELD: its state; empty when there is none of that name
  tpus "$1" list --filter="name ~ /$name\$" --format="value($2)"
}

slice_state() { # ready, pending, lost (to be deleted), absent or unknown
  local queue=ACTIVE node
  if [ -n "$queued" ]; then queue=$(listed queued-resources state.state) || { echo unknown && return; }; fi
  case $queue in
    '') echo absent && return ;;
    FAILED | SUSPENDED) echo lost && return ;;
    ACTIVE) ;;
    *) echo pending && return ;;
  esac
  node=$(listed tpu-vm state) || { echo unknown && return; }
  case $node in
    READY) echo ready ;;
    PREEMPTED | TERMINATED | STOPPED) echo lost ;;
    '') if [ -n "$queued" ]; then echo lost; else echo absent; fi ;;
    *) echo pending ;;
  esac
}

run_state() { # alive, alive-other, start, bare, unknown, or: ended STATUS
  local answers
  answers=$(on_workers "$(ask "${train[@]}")" 2>"$notes/ssh") || { echo unknown && return; }
  case $'\n'$answers$'\n' in
    *$'\nalive-other\n'*) echo alive-other ;;
    *$'\nended 2\n'*) echo ended 2 ;; # the others wait for it, in vain
    *$'\ninterrupted\n'* | *$'\nidle\n'*) echo start ;;
    *$'\nalive\n'*) echo alive ;;
    *$'\nbare\n'*) echo bare ;;
    *$'\nended 0\n'*) echo ended 0 ;;
    *$'\nstopped\n'*) echo ended 130 ;;
    *$'\nended 130\n'* | *$'\nended 143\n'*) echo start ;; # by a signal of the machine, which will be taken away
    *$'\nended '*) grep -m1 '^ended ' <<<"$answers" ;;
    *) echo unknown ;;
  esac
}

# One look at the slice and the run, and what they need; a run that is over leaves its exit status in $over.
tend() {
  local slice run
  if [ -e "$notes/deleted" ]; then say "the slice was deleted by tpu_vm.sh delete" && over=130 && return; fi
  slice=$(slice_state)
  say "the slice is $slice"
  case $slice in
    absent) create || say "it could not be made; trying again" ;;
    lost) delete || say "what is left of it could not be deleted; trying again" ;;
    ready)
      run=$(run_state)
      say "the run is $run"
      if [ "$run" = unknown ]; then no_answer; else unanswered=0; fi
      case $run in
        bare) { install && start revive; } || say "that failed; trying again" ;;
        start) start revive || say "that failed; trying again" ;;
        alive-other) refuse "a run with other flags is alive on $name; stop it first" ;;
        ended*) # an end from before this launcher started is no end, unless the run was finished
          if [ -n "$seen" ] || [ "$run" = "ended 0" ]; then
            over=${run#ended }
          else
            start revive || say "that failed; trying again"
          fi
          ;;
      esac
      [ "$run" = unknown ] || seen=yes
      ;;
  esac
}

# A slice that is ready and cannot be asked may be so for a moment, or for ever: it costs money meanwhile.
no_answer() {
  unanswered=$((unanswered + 1))
  say "it gave no answer: $(tail -n 1 "$notes/ssh")"
  [ "$unanswered" -lt 30 ] && return
  say "no answer 30 times in a row: this launcher ends. The slice is left, and costs money: look with" \
    "tpu_vm.sh ssh, or delete it"
  exit 1
}

keep_running() {
  if [ -n "$dry_run" ]; then
    create && build && install && start revive
    echo "# every $poll s: a slice that was taken away is deleted, made, installed and started again by these commands"
    if [ -n "$delete_after" ]; then delete; fi
    return
  fi
  export CLOUDSDK_CORE_DISABLE_PROMPTS=1
  mkdir -p "$notes"
  rm -f "$notes/deleted"
  [ -d "$bundle" ] || build # the wheel of setup, if it was called, and the same one for every slice
  over='' seen='' unanswered=0
  while tend && [ -z "$over" ]; do sleep "$poll"; done
  say "the run is over, with exit status $over"
  if [ "$over" = 0 ] && [ -n "$delete_after" ]; then
    until delete; do say "it could not be deleted, and costs money; trying again" && sleep "$poll"; done
  fi
  exit "$over"
}

verb=${1:-}
case $verb in
  create | setup | run | status | logs | ssh | stop | delete) shift ;;
  -h | --help) usage && exit 0 ;;
  *) refuse "${verb:-no verb} is not one of create, setup, run, status, logs, ssh, stop, delete" ;;
esac
parse "$@"
cd "$root"
[ "$verb" = run ] || [ ${#train[@]} -eq 0 ] || refuse "${train[0]} is a flag of run"

case $verb in
  create) resolve_type && create ;;
  setup) build && install ;;
  run)
    check_train
    if [ -n "$keep" ]; then resolve_type && keep_running; else start run; fi
    ;;
  status)
    if [ -n "$queued" ]; then tpus queued-resources describe "$name" --format='value(state.state)'; fi
    tpus tpu-vm describe "$name" --format='value(state)'
    on_workers "echo \$(hostname): \$($(ask))"
    ;;
  logs) on_workers "$(on_worker_sh log)" "$worker" ;;
  ssh) tpus tpu-vm ssh "$name" --worker="$worker" ;;
  stop) on_workers "$(on_worker_sh stop)" ;;
  delete)
    if [ -z "$dry_run" ] && [ -d "$notes" ]; then touch "$notes/deleted"; fi # for a launcher that would make it anew
    delete
    ;;
esac
