"""Print the step of a run's newest checkpoint, 0 when there is none.

python launch/newest_checkpoint.py RUN_DIR

RUN_DIR is a folder or a bucket (gs://...). Exit status 1 when it cannot be listed. This is how
until_finished.sh measures progress.
"""

import sys

from etils import epath

folder = epath.Path(sys.argv[1]) / "checkpoints"
names = [path.name for path in folder.iterdir()] if folder.exists() else []
print(max((int(name) for name in names if name.isdigit()), default=0))
