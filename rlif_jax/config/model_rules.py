"""What must hold between the fields of the model, and of its checkpoints."""

from collections.abc import Iterator

from rlif_jax.config.schema import Config, Model


def model_problems(c: Config) -> Iterator[str]:
    """Settings of adapters that contradict each other, or that nothing would read."""
    model, targets = c.model, c.model.lora_targets
    if not targets:
        yield "model.lora_targets is empty; name the weights that get adapters"
    if repeated := sorted({name for name in targets if targets.count(name) > 1}):
        yield f"model.lora_targets names {', '.join(repeated)} twice; name each weight once"
    if model.lora_rank:
        return
    for name in ("lora_alpha", "lora_targets"):
        value, default = getattr(model, name), getattr(Model, name)
        if value != default:
            yield (
                f"model.{name}={value} is read only with adapters; set model.lora_rank, or leave "
                f"it at {default}"
            )
    if c.checkpoint.adapters_only:
        yield (
            "checkpoint.adapters_only=True needs adapters: with model.lora_rank=0 all parameters "
            "are trained; set model.lora_rank, or leave it out"
        )
