#!/usr/bin/env bash
# Run a command again until it says that it is finished. Every launcher here runs the trainer under this loop.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: until_finished.sh [FLAG ...] -- COMMAND [ARGUMENT ...]

  --restarts=N        give up after N restarts in a row without progress (default 10)
  --pause=SECONDS     wait before a restart (default 15)
  --progress=COMMAND  prints a number that grows with progress; without it no restart counts as progress
  --state=DIR         keep a lock, the process id (pid) and the last exit status (ended) in DIR
  --dry-run           print the command instead of running it

The exit status of COMMAND decides: 0 is finished, 2 is bad input, 130 was stopped by a signal; these end the loop, with
the same status. After any other status COMMAND runs again. SIGTERM and Ctrl-C are passed on to COMMAND as SIGTERM; the
loop then ends with it.
USAGE
}

refuse() {
  printf 'error: %s\n' "$1" >&2
  usage >&2
  exit 2
}

say() { printf '%s until_finished: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" >&2; }

restarts=10 pause=15 progress='' state='' dry_run=''
while [ $# -gt 0 ]; do
  case $1 in
    --restarts=*) restarts=${1#*=} ;;
    --pause=*) pause=${1#*=} ;;
    --progress=*) progress=${1#*=} ;;
    --state=*) state=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    *) refuse "$1 is not a flag of until_finished.sh; the command comes after --" ;;
  esac
  shift
done
[ $# -gt 0 ] || refuse "no command is given after --"
[[ $restarts =~ ^[0-9]+$ ]] || refuse "--restarts=$restarts is not a whole number"
[[ $pause =~ ^[0-9]+$ ]] || refuse "--pause=$pause is not a whole number of seconds"

if [ -n "$dry_run" ]; then
  printf '%q ' "$@"
  echo
  exit 0
fi

if [ -n "$state" ]; then
  mkdir -p "$state"
  exec 9>"$state/lock"
  flock --wait 2 9 || refuse "another loop is running in --state=$state; stop it first"
  rm -f "$state/ended"
  echo $$ >"$state/pid"
fi

finish() {
  if [ -n "$state" ]; then echo "$1" >"$state/ended"; fi
  exit "$1"
}

child='' signalled='' interrupted=''
on_signal() {
  signalled=yes interrupted=yes
  if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null || true; fi
}
trap on_signal TERM INT

# Wait for a child, also when signals interrupt the waiting; its exit status is left in $status.
await() {
  local again
  status=0
  wait "$1" || status=$?
  while [ -n "$interrupted" ]; do
    interrupted='' again=0
    wait "$1" || again=$?
    [ "$again" = 127 ] || status=$again # 127: the shell has no such child any more
  done
}

# The number that --progress prints; empty when there is none.
measure() {
  local number
  [ -n "$progress" ] || return 0
  number=$(timeout 60 bash -c "$progress" 2>/dev/null 9>&-) || true
  if [[ $number =~ ^[0-9]+$ ]]; then echo "$number"; fi
}

furthest='' fruitless=0 # the first measurement is made after the first failure: a start waits for no bucket
while :; do
  "$@" & # it keeps the lock, too: should this loop be killed, no second one starts beside it
  child=$!
  if [ -n "$signalled" ]; then kill -TERM "$child" 2>/dev/null || true; fi
  await "$child"
  child=''
  case $status in
    0) say "finished" && finish 0 ;;
    2) say "the input is bad (exit status 2)" && finish 2 ;;
    130) say "stopped by a signal (exit status 130)" && finish 130 ;;
  esac
  if [ -n "$signalled" ]; then say "told to stop (exit status $status)" && finish "$status"; fi

  reached=$(measure)
  fruitless=$((fruitless + 1))
  if [ -n "$furthest" ] && [ "${reached:-0}" -gt "$furthest" ]; then fruitless=0; fi
  if [ -n "$reached" ] && [ "$reached" -gt "${furthest:--1}" ]; then furthest=$reached; fi
  if [ "$fruitless" -gt "$restarts" ]; then
    say "exit status $status; gave up after $restarts restarts without progress" && finish "$status"
  fi
  bound="$fruitless of $restarts without progress"
  say "exit status $status, progress ${furthest:-unknown}; restarts in ${pause} s ($bound)"
  sleep "$pause" 9>&- &
  child=$!
  await "$child"
  child=''
  if [ -n "$signalled" ]; then say "told to stop while waiting" && finish 130; fi
done
