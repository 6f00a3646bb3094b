"""Print the step of a run's newest checkpoint, 0 when there is none.

python launch/newest_checkpoint.py RUN_DIR

RUN_DIR is a folder or a bucket (gs://...). Exit status 1 when it cannot be listed. This is how
until_finished.sh measures progress. In a bucket a checkpoint that is being written has its name
already; one that is whole has commit_success.txt.
"""

import sys

from etils import epath

folder = epath.Path(sys.argv[1]) / "checkpoints"
steps = [path for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else []
if sys.argv[1].startswith("gs://"):
    steps = [path for path in steps if (path / "commit_success.txt").exists()]
print(max((int(path.name) for path in steps), default=0))
