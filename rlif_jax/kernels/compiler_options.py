"""What XLA is told when it compiles the stages whose time goes to large matrix products."""

import functools

import jax

from rlif_jax import sharding


def product_options() -> dict[str, str] | None:
    """Options for `jax.jit` on the mesh of `jax.set_mesh`; None: those of XLA.

    On a single CPU products are left to Eigen: YNNPACK, which JAX 0.10 hands them to, takes twice
    as long where one matrix is transposed, as in every gradient (benchmarks/RESULTS.md). Eigen
    rounds by the number of threads, so meshes stay with YNNPACK: there the numbers of one process
    are those of several. The option is one of XLA's experiments; versions that do not know it go
    without.
    """
    if not sharding.on_one_cpu() or not _known(**_WITHOUT_YNNPACK):
        return None
    return _WITHOUT_YNNPACK


_WITHOUT_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": ""}


@functools.cache
def _known(**options: str) -> bool:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        one = jax.jit(lambda x: x, compiler_options=options).lower(0.0)
    try:
        one.compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
