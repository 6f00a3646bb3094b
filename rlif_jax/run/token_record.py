"""The certainty of each token of a step, beside its rollouts: rollouts/step_NNNNNN.tokens.npz."""

import dataclasses
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlif_jax.batch import Array, TokenStats
from rlif_jax.errors import UserError
from rlif_jax.storage.folder import Folder

_MOST = float(np.finfo(np.float16).max)


def token_file(folder: Folder, step: int) -> Folder:
    """Where the certainty of each token of a step is."""
    return folder / "rollouts" / f"step_{step:06d}.tokens.npz"


def recorded_at(every: int, step: int) -> bool:
    """Whether the tokens of a step are recorded: of the first and of each `every`-th; 0: never."""
    return every > 0 and (step == 1 or step % every == 0)


@dataclass(frozen=True)
class TokenRecord:
    """What a page needs to shade a text by certainty, of all tokens [L] of B rows in row order.

    `lengths` uint32 [B] are the tokens of each row, that of the end of the sequence included.
    Float16 [L], in nats but for the last: `logprob`, `entropy`, `self_certainty` as in `TokenStats`
    and `probability_disparity` = top1 - top2. `ends` uint32 [L] are the characters of the row's
    completion up to and with the token, as `weights/token_ends.py` counts them.
    """

    lengths: np.ndarray
    logprob: np.ndarray
    entropy: np.ndarray
    self_certainty: np.ndarray
    probability_disparity: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, stats: TokenStats, mask_BC: Array, ends: Sequence[np.ndarray]) -> "TokenRecord":
        """The record of B rows: `stats` [B, C] where `mask_BC` says that a token is, row by row.

        A number beyond the range of float16, +-65,504, becomes its end.
        """
        mask_BC = np.asarray(mask_BC, bool)

        def kept(values_BC: Array) -> np.ndarray:
            values = np.asarray(values_BC, np.float32)[mask_BC]
            return np.clip(values, -_MOST, _MOST).astype(np.float16)

        return cls(
            lengths=mask_BC.sum(axis=1).astype(np.uint32),
            logprob=kept(stats.logprob),
            entropy=kept(stats.entropy),
            self_certainty=kept(stats.self_certainty),
            probability_disparity=kept(np.asarray(stats.top1) - np.asarray(stats.top2)),
            ends=np.concatenate([np.zeros(0, np.uint32), *ends]),
        )

    def row(self, row: int) -> "TokenRecord":
        """That of one row alone. Raises IndexError for one that is not there."""
        last = np.cumsum(self.lengths, dtype=np.int64)[row]
        own = slice(int(last - self.lengths[row]), int(last))
        arrays = {name: getattr(self, name)[own] for name in _PER_TOKEN}
        return TokenRecord(lengths=self.lengths[[row]], **arrays)

    def encoded(self) -> bytes:
        """The file, a compressed archive of NumPy's; equal records give equal bytes."""
        file = io.BytesIO()
        # np.savez_compressed has a level that takes six times as long, for as many bytes.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in _FIELDS:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as one:
                    np.lib.format.write_array(one, getattr(self, name), allow_pickle=False)
        return file.getvalue()


_FIELDS = tuple(field.name for field in dataclasses.fields(TokenRecord))
_PER_TOKEN = _FIELDS[1:]


def read_token_record(folder: Folder, step: int) -> TokenRecord | None:
    """What a run folder has of the tokens of a step; None: it has none.

    Raises:
        UserError: the file is damaged.
    """
    path = token_file(folder, step)
    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            record = TokenRecord(**{name: arrays[name] for name in _FIELDS})
        tokens = int(record.lengths.sum())
        if any(getattr(record, name).shape != (tokens,) for name in _PER_TOKEN):
            raise ValueError(f"its rows have {tokens} tokens and its arrays another number")
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read: {error}. Restore the file, or remove it: only the shading of "
            "texts by certainty needs it."
        ) from error
    return record
