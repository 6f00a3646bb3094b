"""Whether a mesh can split a model, known before any device is touched.

`tensor` splits query heads, key/value heads, the feed-forward block and the vocabulary; `fsdp` and
`context` the embedding axis of weights, and `context` the heads once more within attention. An axis
that its devices do not divide would be whole on each of them, work and memory alike, so such a mesh
is refused. Key/value heads alone may be fewer than the devices, as grouped-query attention has
them: each device then keeps all of their weights, and in the cache the one head that its query
heads read.
"""

import math

from rlif_jax.errors import UserError
from rlif_jax.model.config import ModelConfig, param_specs


def check_mesh(cfg: ModelConfig, fsdp: int, tensor: int, context: int = 1) -> list[str]:
    """Sentences about what each device of this mesh holds whole, and what that costs.

    Raises:
        UserError: all axes of the model that the mesh does not divide, and the sizes that would.
    """
    problems = []
    if undivided := _undivided(cfg, tensor):
        fitting = [n for n in range(1, cfg.heads + 1) if not _undivided(cfg, n)]
        problems.append(
            f"mesh.tensor={tensor} does not divide the model's {' and '.join(undivided)}; "
            f"choose one of {fitting}"
        )
    elif _undivided_heads(cfg, tensor * context):
        fitting = [n for n in range(1, cfg.heads + 1) if not _undivided_heads(cfg, tensor * n)]
        problems.append(
            f"mesh.context={context} * mesh.tensor={tensor} does not divide the model's heads "
            f"({cfg.heads} for queries, {cfg.kv_heads} for keys and values), which both split "
            f"within attention; choose mesh.context from {fitting}"
        )
    if cfg.embed % (split := fsdp * context):
        fitting = [n for n in range(1, cfg.embed + 1) if cfg.embed % n == 0]
        below = max(n for n in fitting if n < split)
        above = [f" and {n}" for n in fitting if n > split][:1]
        named = f"mesh.fsdp={fsdp}" + (f" * mesh.context={context}" if context > 1 else "")
        problems.append(
            f"{named} does not divide the model's embedding of {cfg.embed}; the nearest "
            f"that divide it: {below}{''.join(above)}"
        )
    if problems:
        raise UserError(f"the mesh cannot split this model: {'; '.join(problems)}")
    return _kept_whole(cfg, fsdp * context, tensor)


def _undivided_heads(cfg: ModelConfig, devices: int) -> bool:
    """Whether a number of devices cannot split the heads of attention evenly."""
    return bool(cfg.heads % devices or (cfg.kv_heads % devices and devices % cfg.kv_heads))


def _undivided(cfg: ModelConfig, tensor: int) -> list[str]:
    """The axes of the model that `tensor` devices do not divide, with their sizes."""
    # A key/value head is repeated for the devices that share it: a whole number of them.
    shared = tensor % cfg.kv_heads == 0
    sizes = {
        "query heads": cfg.heads,
        "key/value heads": tensor if shared else cfg.kv_heads,
        "feed-forward channels": cfg.ffn,
        "vocabulary rows": cfg.vocab_rows,
    }
    return [f"{size} {name}" for name, size in sizes.items() if size % tensor]


def _kept_whole(cfg: ModelConfig, fsdp: int, tensor: int) -> list[str]:
    """What every device holds of key/value heads that are fewer than the devices."""
    K, A, L = cfg.kv_heads, cfg.head_dim, cfg.layers
    if tensor <= K:
        return []
    heads = [spec for spec in param_specs(cfg).values() if "kv_heads" in spec.axes]
    whole = sum(
        4 * math.prod(spec.shape) / (fsdp if "embed" in spec.axes else 1) / 2**20 for spec in heads
    )
    cached = 2 * L * A
    return [
        f"mesh.tensor={tensor} exceeds the {K} key/value heads, so each device holds the weights "
        f"of all of them, {whole:.3g} MiB where an even split would be {whole / tensor:.3g} MiB "
        "(training holds as much again for the gradient and for each moment), and "
        f"{cached} numbers of cache a token where an even split would be {cached * K // tensor}"
    ]
