"""The files of a published problem set: in a local folder, in a bucket, or on the Hub."""

from collections.abc import Collection, Sequence
from pathlib import Path

from rlif_jax.errors import UserError
from rlif_jax.storage.bucket import BucketFiles
from rlif_jax.storage.hub import Wanted, fetch


def release_files(location: str, names: Sequence[str], remedy: str) -> list[Path]:
    """Local paths of the files `names` at `location`, downloaded first where they are missing.

    A location is a folder, where a file may be called NAME.gz; `gs://BUCKET/FOLDER`; or
    `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`, a data set of the Hugging Face Hub. Files of the Hub go
    to its own cache (`storage.hub`), objects of a bucket to `cache_folder()` (`storage.bucket`).

    Raises UserError for a missing file, naming it, the location and the `remedy`, and when the
    location cannot be read.
    """
    if location.startswith("hf:"):
        return _of_hub(location, names, remedy)
    if location.startswith("gs://"):
        bucket = BucketFiles(location, remedy)
        return [bucket.local_copy([name]) / name for name in names]
    if "://" in location:
        raise UserError(
            f"{location} is neither a local folder nor gs://BUCKET/FOLDER nor hf:ORG/NAME; copy it "
            "to one."
        )
    folder = Path(location).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{location} {what}; name the folder that holds {names[0]}.")
    return [_of_folder(folder, location, name, remedy) for name in names]


def _of_folder(folder: Path, location: str, name: str, remedy: str) -> Path:
    """A file of a folder, or else its compressed copy."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise _missing(location, name, remedy)


def _of_hub(location: str, names: Sequence[str], remedy: str) -> list[Path]:
    def check(listed: Collection[str], chosen: Collection[str]) -> None:
        for name in names:
            if name not in chosen:
                raise _missing(location, name, remedy)

    def is_whole(folder: Path) -> bool:
        return all((folder / name).is_file() for name in names)

    elsewhere = f"get the files elsewhere and give their folder: {remedy}"
    found = fetch(Wanted(location, "dataset", names, check, is_whole, elsewhere))
    return [found.path / name for name in names]


def _missing(location: str, name: str, remedy: str) -> UserError:
    return UserError(f"{location} has no file {name}; {remedy}")
