"""What must hold between the guard against collapse and the rest."""

from collections.abc import Collection, Iterator

from rlif_jax.config.schema import Config


def guard_problems(c: Config, known: Collection[str]) -> Iterator[str]:
    """Actions that lack what they need, and terms that nothing reads or that are not there."""
    action, names = c.guard.action, [name for name, _ in c.guard.terms]
    if c.guard.switches and not names:
        yield (
            f"guard.action={action} needs guard.terms, what is rewarded after a collapse: the same "
            'reward would lead there again; for example guard.terms=(("tests_passed", 1.0),)'
        )
    if names and not c.guard.switches:
        yield (
            f"guard.terms={c.guard.terms} are read only with guard.action=switch or rollback; set "
            "one of these, or leave guard.terms empty"
        )
    if action == "rollback" and not c.checkpoint.every:
        yield (
            "guard.action=rollback needs checkpoints to return to, and checkpoint.every=0 has "
            "none; set checkpoint.every"
        )
    for name in names:
        if name not in known:
            yield f"guard.terms names {name!r}; known rewards are {', '.join(sorted(known))}"
    if len(set(names)) < len(names):
        yield f"guard.terms names a reward twice: {names}; give it one weight"
