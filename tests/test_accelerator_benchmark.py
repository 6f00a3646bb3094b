"""benchmarks/accelerator.py on a CPU with a very small model: what it finds, and what it tells."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import accelerator
from benchmarks.on_device import counts, kernel_checks, machine
from benchmarks.on_device.parts import CompileMeter, Parts, timed
from benchmarks.on_device.questions import made_questions
from benchmarks.on_device.report import as_json
from benchmarks.on_device.results import Ceilings, Check, Figure
from benchmarks.on_device.runs import make_run
from benchmarks.on_device.sizes import SMALL, TINY, StepSize
from benchmarks.on_device.step_checks import check_step
from rlif_jax.config import Execution
from rlif_jax.console.notice import ignore
from rlif_jax.execution.pool import Judge
from rlif_jax.kernels.attention.api import attention
from rlif_jax.kernels.paged_attention.api import paged_attention
from rlif_jax.kernels.token_stats.api import token_stats
from rlif_jax.model import decoder
from rlif_jax.planning.counts import Work
from rlif_jax.problem import Verdict
from rlif_jax.sharding import make_mesh

SIZES = dataclasses.replace(
    SMALL,
    product=64,
    copy_mib=1,
    kernel_model=TINY,
    tokens=37,
    columns=150,
    models=(("tiny", TINY),),
    step=StepSize(prompts=2, samples=2, prompt=10, new=64, in_row=2),
    many_slots=8,
    many_new=96,
    repeats=3,
    pace=0.0,  # nothing is skipped
)


@pytest.fixture(scope="module", autouse=True)
def one_device():
    with jax.set_mesh(make_mesh()):
        yield


@pytest.fixture(scope="module")
def judge():
    with Judge(Execution(workers=2)) as judge:
        yield judge


def failed(checks) -> list[str]:
    return [check.what for check in checks if isinstance(check, Check) and not check.passed]


# ---- the command


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The exit status, the printed text, and the JSON file of a whole run."""
    path = tmp_path_factory.mktemp("out") / "found.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "SMALL", SIZES)
        status = accelerator.main(["--small", "--out", str(path)])
    return status, json.loads(path.read_text())


@pytest.mark.slow
def test_everything_passes_on_a_cpu(told):
    status, found = told
    assert [check for check in found["checks"] if not check["passed"]] == []
    assert [part for part in found["parts"] if part["status"] != "done"] == []
    assert status == 0 and found["passed"] is True


@pytest.mark.slow
def test_each_operation_is_checked_in_both_types(told):
    _, found = told
    seen = {(check["operation"], check["dtype"]) for check in found["checks"]}
    operations = {"token_stats", "attention", "paged attention", "training step"}
    both = {(name, dtype) for name in operations for dtype in ("float32", "bfloat16")}
    assert seen == both | {("product", "float32")}
    # Float32 has no rounding to bfloat16 to hide behind.
    assert all(c["tolerance"] < 1e-3 for c in found["checks"] if c["dtype"] == "float32")
    refused = " ".join(one["what"] for one in found["refusals"])
    assert "splash" in refused and "cudnn" in refused and "blocked" not in refused


@pytest.mark.slow
def test_times_have_a_spread_and_a_share(told):
    _, found = told
    figures = {one["what"]: one for one in found["figures"]}
    stages = ("decode, 4 slots", "decode, 8 slots", "prefill", "score", "update", "step")
    products = {f"{name}{when}" for name in ("product", "copy") for when in ("", ", at the end")}
    assert set(figures) == {*products, *stages}
    for name in stages:
        one, (low, high) = figures[name], figures[name]["spread"]
        assert 0 < low <= one["median"] <= high
        assert one["runs"] >= 1 and one["share"] > 0
        assert one["ceiling"] in ("product", "copy") and one["dtype"] == "float32"
    # Four sequences of 10 + 64 tokens, less the last of each, which predicts nothing.
    update = figures["update"]
    assert update["unit"] == "token/s"
    assert update["median"] * update["seconds"] == pytest.approx(4 * 73)
    assert {"float32", "bfloat16", "copied"} == set(found["ceilings"])


@pytest.mark.slow
def test_the_file_says_where_it_was_measured(told):
    _, found = told
    assert found["platform"] == "cpu" and found["devices"] >= 1
    assert found["versions"]["jax"] == jax.__version__ and "jaxlib" in found["versions"]
    assert len(found["date"]) == len("2026-11-28")
    assert all(part["peak_bytes"] > 0 for part in found["parts"])
    assert sum(part["compile_seconds"] for part in found["parts"]) > 0


def test_a_failed_check_is_told_and_is_the_exit_status(monkeypatch, tmp_path, capsys):
    def one_part(_sizes, parts: Parts, _judge) -> None:
        parts.run("bad", 0, lambda: [Check("product", "values", "float32", 0.5, 0.25, "")])
        parts.run("good", 0, fine)

    monkeypatch.setattr(accelerator, "run_all", one_part)
    path = tmp_path / "found.json"
    assert accelerator.main(["--small", "--out", str(path)]) == 1
    found, text = json.loads(path.read_text()), capsys.readouterr().out
    assert found["passed"] is False and len(found["checks"]) == 2
    assert found["checks"][0]["error"] == 0.5 and not found["checks"][0]["passed"]
    assert "FAILED" in text and "2 checks, 1 failed" in text


# ---- faults that the checks have to find


def test_a_wrong_statistic_fails_its_own_check():
    def wrong(*args):
        stats = token_stats(*args)
        return stats.replace(top1=stats.top1 * 1.001)

    assert failed(kernel_checks.check_token_stats(SIZES, "float32", wrong)) == ["top1"]


def test_a_wrong_gradient_fails():
    def wrong(x_TD, head_VD, *args):
        halved = x_TD * 0.99 + jax.lax.stop_gradient(x_TD * 0.01)
        return token_stats(halved, head_VD, *args)

    found = kernel_checks.check_token_stats(SIZES, "float32", wrong)
    assert failed(found) == ["gradient by x"]


@pytest.mark.parametrize("dtype", kernel_checks.DTYPES)
def test_attention_that_sees_other_segments_fails(dtype):
    def wrong(q, k, v, segments, **settings):
        return attention(q, k, v, segments.replace(own=jnp.maximum(segments.own, 2)), **settings)

    checks = (c for c in kernel_checks.check_attention(SIZES, dtype, wrong) if type(c) is Check)
    packed = next(checks)  # rows of several sequences come first
    assert packed.what.startswith("blocked, packed") and not packed.passed


@pytest.mark.parametrize("dtype", kernel_checks.DTYPES)
def test_paged_attention_that_leaves_out_the_last_token_fails(dtype):
    def wrong(kernel, q, k, v, table, length, first):
        return paged_attention(kernel, q, k, v, table, jnp.maximum(length - 1, 1), first)

    assert failed(kernel_checks.check_paged_attention(SIZES, dtype, wrong)) == ["plain kernel"]


def test_float32_products_of_rounded_operands_fail(monkeypatch):
    def rounded(subscripts, x, y):
        return jnp.einsum(subscripts, x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))

    monkeypatch.setattr(kernel_checks, "einsum", rounded)
    assert failed(kernel_checks.check_products(SIZES)) == ["values beside float64"]


def test_a_number_that_is_none_fails():
    check = Check("product", "values", "float32", float("nan"), 1.0, "")
    assert not check.passed and check.as_json()["error"] is None


@pytest.mark.slow
def test_a_fault_in_the_model_fails_the_training_step(monkeypatch, judge):
    """One that the trainer has and the sampler's own attention has not."""
    monkeypatch.setattr(decoder, "attention", lambda *a, **k: 1.01 * attention(*a, **k))
    names = failed(check_step(SIZES, "float32", judge))
    assert any("gradient" in name for name in names)
    assert any("sampler" in name for name in names)


# ---- running the parts


def parts_of(*works, minutes=1.0, now=lambda: 0.0) -> Parts:
    with CompileMeter() as meter:
        parts = Parts(minutes, meter, ignore, now)
        for name, needs, work in works:
            parts.run(name, needs, work)
    return parts


def fine():
    yield Check("product", "values", "float32", 0.0, 1.0, "")


def out_of_memory():
    yield from fine()
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


def broken():
    yield from fine()
    raise ZeroDivisionError("of a part")


def test_compiling_while_timed_is_an_error():
    """Each call has another shape."""
    sizes = iter(range(3, 20))
    with pytest.raises(RuntimeError, match="stages were compiled while they were timed"):
        timed(lambda: jax.jit(lambda x: x * 5 - 3)(np.ones(next(sizes))), repeats=2)
    assert len(timed(lambda: jnp.ones(3), repeats=4)) == 4


def test_what_runs_out_of_memory_is_reported_and_the_rest_runs():
    parts = parts_of(("large", 1, out_of_memory), ("after", 1, fine))
    assert [one.status for one in parts.endings] == ["out of memory", "done"]
    assert len(parts.checks) == 2  # what was found before is kept
    assert parts.passed and "9 bytes" in parts.endings[0].reason


def test_an_error_is_reported_and_the_rest_runs(capsys):
    parts = parts_of(("bad", 1, broken), ("after", 1, fine))
    assert [one.status for one in parts.endings] == ["error", "done"]
    assert not parts.passed and as_json({}, "small", parts)["passed"] is False
    assert "ZeroDivisionError: of a part" in parts.endings[0].reason
    assert "broken" in capsys.readouterr().err  # the traceback


def test_a_part_that_does_not_fit_into_the_time_left_is_skipped():
    clock = iter([0.0, *[50.0] * 20])
    parts = parts_of(("long", 11, broken), ("short", 9, fine), now=lambda: next(clock))
    assert [one.status for one in parts.endings] == ["skipped", "done"]
    assert parts.endings[0].reason == "takes about 11 s and 10 s are left"
    assert parts.passed


def test_parts_that_take_longer_make_the_next_be_expected_to():
    """The first takes 40 s where 10 were expected, so that the next needs 4 x 9 of the 20 left."""
    times = iter([0.0, 0.0, 0.0, 40.0, 40.0, 40.0, 40.0, *[40.0] * 9])
    parts = parts_of(("slow", 10, fine), ("next", 9, fine), now=lambda: next(times))
    assert [one.status for one in parts.endings] == ["done", "skipped"]
    assert parts.endings[1].reason == "takes about 36 s and 20 s are left"


def test_a_run_has_float32_numbers_of_no_other_kind():
    """A weak type would have every stage compiled again behind the first update."""
    run = make_run(TINY, SIZES.step, "float32", slots=4, judged=False)
    assert [
        x.aval for x in jax.tree.leaves(run.params) if x.weak_type or x.dtype != "float32"
    ] == []


def test_a_share_is_of_the_ceiling_that_binds():
    ceilings = Ceilings(float32=10.0, bfloat16=100.0, copied=5.0)
    of = {"what": "", "model": "", "unit": "token", "amount": 3.0, "seconds": (2.0, 4.0, 4.0)}
    assert ceilings.or_better(Ceilings(9.0, 200.0, 5.0)) == Ceilings(10.0, 200.0, 5.0)
    one = Figure(**of, dtype="float32", work=Work(flops=20.0, bytes=5.0))
    assert one.share(ceilings) == (0.5, "product")  # 2 s of 4
    assert dataclasses.replace(one, dtype="bfloat16").share(ceilings) == (0.25, "copy")
    assert one.as_json(None)["share"] is None and one.rates == (0.75, 0.75, 1.5)


# ---- what is counted and asked


def test_counts_in_closed_form():
    """By hand for a small shape: 1,000 rows of a head, and three tokens that see six keys."""
    layers, head = 2 * (64 * 4 * 16 * 2 + 64 * 2 * 16 * 2 + 3 * 64 * 160), 1000 * 64
    attention = 2 * 2 * 2 * 4 * 16  # scores and values, two FLOPs a channel, two layers
    three = np.array([3])
    score, update = counts.score(TINY, three, 1), counts.update(TINY, three, 5)
    assert score.flops == 2 * (layers + head) * 3 + attention * 6 == update.flops / 3
    assert score.bytes == 4 * (layers + head) and update.bytes == 4 * (layers + head) * (5 * 4 + 7)
    prefill = counts.prefill(TINY, 3, itemsize=2)
    assert prefill.flops == score.flops - 2 * head * 3
    assert prefill.bytes == 2 * layers + 3 * 2 * 2 * 2 * 16 * 2
    step = counts.decode_step(TINY, slots=8, context=100, itemsize=2)
    assert step.flops == 2 * (layers + head) * 8 + attention * 800
    assert step.bytes == 2 * (layers + head) + 800 * 2 * 2 * 2 * 16 * 2


def test_tokens_stand_for_programs_that_the_judge_runs(judge):
    size = StepSize(prompts=1, samples=3, prompt=12, new=4, in_row=1)
    submissions = made_questions(size, vocab=1000, judge=judge).submissions
    submissions.finished(np.arange(3), [np.array([5, last]) for last in (3, 4, 5)])
    verdicts = [one.verdict for one in submissions.collect().outcomes]
    assert verdicts == [Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR]


@pytest.mark.parametrize(
    ("environment", "fraction", "preallocated"),
    [
        ({}, 0.75, True),
        ({"XLA_CLIENT_MEM_FRACTION": "0.9"}, 0.9, True),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5"}, 0.5, True),
        ({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, 0.75, False),
    ],
)
def test_the_memory_of_a_gpu_is_told(environment, fraction, preallocated):
    facts = machine.memory("gpu", {"bytes_limit": 60 * 2**30}, environment)
    assert (facts["fraction"], facts["preallocated"]) == (fraction, preallocated)
    line = machine.memory_line(facts)
    assert line.startswith("memory that JAX may take: 60.0 GiB") and f"{fraction:g}" in line
    assert ("taken at the start" in line) == preallocated
    assert "fraction" not in machine.memory("cpu", {}, environment)
