"""Rows placed on a mesh."""

from jax.sharding import Mesh, NamedSharding

from rlif_jax.sharding import spec


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over data and fsdp; every other axis replicated."""
    return NamedSharding(mesh, spec(("batch",)))
