"""The starting model as the anchor of the KL term: how its parameters are kept between scorings."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from rlif_jax.batch import Params


def kept_reference(params: Params, dtype: DTypeLike, on_host: bool = False) -> Params:
    """A copy of the starting model's parameters, for a model whose products are of `dtype`.

    Every product casts its weights to that type, so they are kept in it; norms stay float32, and
    scores are the same bit for bit. With `on_host` the copy lies in the host's memory, each
    device's share beside its device.
    """

    def keep(variable):
        value = variable.get_value()
        kept = jnp.array(value, value.dtype if "norm" in variable.axes else dtype, copy=True)
        place = value.sharding.with_memory_kind("pinned_host" if on_host else "device")
        return variable.replace(jax.device_put(kept, place))

    return jax.tree.map(keep, params, is_leaf=lambda x: hasattr(x, "axes"))


def on_devices(reference: Params) -> Params:
    """The reference where stages can read it; an array that lies there already is not copied."""
    return jax.tree.map(
        lambda x: jax.device_put(x, x.sharding.with_memory_kind("device")), reference
    )
