# shellcheck shell=bash
# Sourced by tpu_vm.sh and gpu_node.sh: printing in place of doing, and the bundle that every machine of a run gets.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python_version=3.13
dry_run=''

# Words as one line that can be pasted into a shell.
quoted() {
  local word line=''
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

# Run a command, or print it under --dry-run.
call() {
  if [ -n "$dry_run" ]; then quoted "$@"; else "$@"; fi
}

# Note a file of the user for the bundle, as seen from the project's folder.
files=()
add_file() {
  [ -e "$1" ] || refuse "--file=$1 does not exist"
  files+=("$(realpath --relative-to="$root" "$1")")
}

# build_bundle FOLDER EXTRAS [PLATFORM]: one wheel, the versions of all that it needs, the configurations, the user's
# files and the scripts that run beside the trainer. PLATFORM is uv's name of the workers' platform, unless it is this
# machine's. Call it in the project's folder.
build_bundle() {
  local folder=$1 extra compile=(uv pip compile --quiet pyproject.toml)
  [ -n "$dry_run" ] || command -v uv >/dev/null || refuse "uv is not installed here; type: pip install uv"
  for extra in ${2//,/ }; do compile+=(--extra "$extra"); done
  compile+=(--python-version "$python_version" ${3:+--python-platform "$3"})
  call rm -rf "$folder"
  call mkdir -p "$folder"
  call uv build --quiet --wheel --out-dir "$folder"
  call "${compile[@]}" --output-file "$folder/requirements.txt"
  call cp -R configs launch/worker.sh launch/until_finished.sh launch/newest_checkpoint.py "${files[@]}" "$folder"
}
