"""Machines of a run: worker.sh runs for real, with small stand-ins for uv and the trainer."""

import os
import signal
import sys
import time
from pathlib import Path

WITHIN_S = 60

UV = f"""
case "$1 $2" in
  "build --quiet")
    [ "$3 $4" = "--wheel --out-dir" ] && touch "$5/rlif_jax-0-py3-none-any.whl" ;;
  "pip compile") touch "${{@: -1}}" ;;
  "venv --quiet")
    mkdir -p "$5/bin"
    cat > "$5/bin/python" <<'PYTHON'
#!/usr/bin/env bash
case $2 in gs://*) echo 0; exit ;; esac
[ "$1" = -m ] || exec {sys.executable} "$@"
echo "$*" >> "$RLIF_HOME/starts"
eval "$(cat "$TRAINER")"
PYTHON
    chmod +x "$5/bin/python" ;;
esac
"""
"""What uv does: an empty wheel, and a `python` that trains as the bash file $TRAINER says."""

TRAINS = """
trap 'sleep 0.2; exit 130' TERM
until [ -e "$RLIF_HOME/exit" ]; do sleep 0.05; done
exit "$(cat "$RLIF_HOME/exit")"
"""
"""A trainer that runs until a status is put into a file, and takes a moment to stop."""


def wait_until(true, what: str) -> None:
    end = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < end, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.05)


class Machine:
    """The folder of a machine, as launch/worker.sh leaves it."""

    def __init__(self, home: Path):
        self.home = home

    @property
    def starts(self) -> list[str]:
        file = self.home / "starts"
        return file.read_text().splitlines() if file.exists() else []

    def exit_with(self, status: int) -> None:
        """Let the trainer, if it runs, end with a status."""
        (self.home / "exit").write_text(str(status))

    def wait_for_end(self) -> str:
        """Wait for the restart loop to end; return what it noted."""
        ended = self.home / "state" / "ended"
        wait_until(ended.exists, f"an end of the run in {self.home}")
        return ended.read_text().strip()

    def kill(self) -> None:
        """Take the machine away from under its processes, if there are any."""
        file = self.home / "state" / "pid"
        if file.exists():
            session = int(file.read_text())  # worker.sh starts the loop in a session of its own
            try:
                os.killpg(session, signal.SIGKILL)
            except ProcessLookupError:
                return
            wait_until(lambda: not Path(f"/proc/{session}").exists(), f"the end of {session}")
