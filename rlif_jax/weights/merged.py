"""Weights of a base model with a run's adapters merged into them."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import NamedSharding, Sharding

from rlif_jax.console.notice import Notice
from rlif_jax.model.config import Lora
from rlif_jax.model.lora import merged
from rlif_jax.sharding import replicated
from rlif_jax.weights.layout import leaf_of, to_file
from rlif_jax.weights.orbax_folder import OrbaxWeights
from rlif_jax.weights.parameters import FLOAT32, Weights, cast


class MergedWeights:
    """`base` with w + scale * a b in place of each weight w that has an adapter.

    All are float32, as the weights in a checkpoint; see `weights.Weights`.
    """

    def __init__(self, base: Weights, adapters: OrbaxWeights, lora: Lora):
        self._base, self._adapters, self._lora = base, adapters, lora
        self.unused = base.unused
        self._last: tuple[str, list[np.ndarray]] = ("", [])

    def arrays(
        self, shardings: Mapping[str, Sharding], notice: Notice | None
    ) -> dict[str, jax.Array]:
        """See `weights.Weights`; of the adapters every device reads the whole."""
        arrays = self._base.arrays(shardings, notice)
        place = next(iter(shardings.values()))
        whole = replicated(place.mesh) if isinstance(place, NamedSharding) else place
        factors = self._adapters.arrays(dict.fromkeys(self._adapters.names, whole), None)
        for target in self._lora.targets:
            name = f"layers.{target}"
            a, b = factors[f"{name}_lora_a"], factors[f"{name}_lora_b"]
            add = jax.jit(merged, static_argnums=3, donate_argnums=0, out_shardings=shardings[name])
            arrays[name] = add(arrays[name], a, b, self._lora.scale)
        return arrays

    def fingerprint(self) -> str:
        """See `weights.Weights`."""
        return f"{self._base.fingerprint()}+{self._adapters.fingerprint()}"

    def whole(self, name: str, dtype: np.dtype) -> np.ndarray:
        """See `weights.Weights`."""
        value = self._base.whole(name, FLOAT32)
        if leaf_of(name) in self._lora.targets:
            value = value + np.stack([self._added(name, i) for i in range(len(value))])
        return value.astype(dtype, copy=False)

    def stored(self, name: str, layer: int) -> np.ndarray:
        """See `weights.Weights`."""
        value = cast(self._base.stored(name, layer), FLOAT32)
        if leaf_of(name) in self._lora.targets:
            return value + to_file(name, self._added(name, layer))
        return value

    def dtype(self, name: str, layer: int) -> np.dtype:
        """See `weights.Weights`."""
        return FLOAT32

    def _added(self, name: str, layer: int) -> np.ndarray:
        if self._last[0] != name:  # layers are requested in order: restore them together
            factors = [self._adapters.whole(f"{name}_lora_{factor}", FLOAT32) for factor in "ab"]
            self._last = (name, factors)
        a, b = self._last[1]
        return np.float32(self._lora.scale) * np.tensordot(a[layer], b[layer], axes=1)
