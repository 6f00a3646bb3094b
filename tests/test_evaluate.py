"""Evaluation: what it writes, resuming after a kill, several processes, repeatability, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from support import ROOT
from support.tiny import write_problems
from support.two_processes import free_address

from rlif_jax.config import Execution, Mesh
from rlif_jax.data.prompts import DEFAULT_OPTIONS
from rlif_jax.errors import UserError
from rlif_jax.evaluate import evaluate, main
from rlif_jax.evaluation.arguments import Arguments, Processes
from rlif_jax.evaluation.drawing import held_out, make_evaluation
from rlif_jax.evaluation.results import metrics_of
from rlif_jax.execution.pool import Judge
from rlif_jax.sampler.engine import Engine
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sample import make_sample
from rlif_jax.sharding import make_mesh
from rlif_jax.weights.source import OpenModel, open_model


@pytest.fixture
def arguments(tiny_path, tmp_path, monkeypatch):
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    problems = write_problems(tmp_path / "adding.jsonl")
    return Arguments(
        model=str(tiny_path),
        data=str(problems),
        max_new_tokens=8,
        n=2,
        k=2,
        execution=Execution(workers=1),
    )


def flags(arguments: Arguments) -> list[str]:
    """The arguments that differ from the defaults, as a person gives them."""
    names = ("model", "data", "max_new_tokens", "n", "k", "out", "slots", "page", "temperature")
    given = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]
    return [*given, "--execution.workers=1", "--execution.time-limit-s=2"]


def test_the_files_have_the_scores_and_what_made_them(arguments, tmp_path, capsys):
    asked = replace(arguments, out="result.json", lcb_out="lcb.json")
    main([*flags(asked), "--lcb-out=lcb.json"])
    result = json.loads(Path("result.json").read_text())
    assert result["arguments"]["n"] == 2 and result["data"]["problems"] == 2
    exact = {"operands": "float32", "products": "highest", "head": "highest"}
    assert result["model"]["precision"] == exact
    metrics = result["metrics"]
    names = ("avg@2", "avg@2_low", "avg@2_high", "pass@1", "pass@2", "response_length")
    assert metrics.keys() == {f"eval/adding/{name}" for name in names}
    assert metrics["eval/adding/avg@2"] == 0  # a random model solves nothing
    assert 1 <= metrics["eval/adding/response_length"] <= 8
    about, *rows = map(json.loads, Path("result.samples.jsonl").read_text().splitlines())
    assert about["problems"] == 2 and about["n"] == 2
    assert [(row["problem"], row["sample"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    lengths = [problem["length"] for problem in result["problems"]]
    assert lengths == [[rows[0]["length"], rows[1]["length"]], [r["length"] for r in rows[2:]]]
    assert metrics["eval/adding/response_length"] == pytest.approx(np.mean(lengths))
    for row in rows:
        assert -np.log(len(row["completion"].encode()) + 300) < row["rewards"]["token_entropy"] < 0
        assert 0 < row["rewards"]["probability_disparity"] < 1
    official = json.loads(Path("lcb.json").read_text())
    assert [one["question_id"] for one in official] == sorted(p["id"] for p in result["problems"])
    assert all(one["graded_list"] == [False, False] for one in official)
    assert all(len(one["code_list"]) == len(one["output_list"]) == 2 for one in official)
    assert Path("result.certainty.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "avg@2" in printed and "wrote result.json" in printed
    # once more: nothing is sampled, and the same is written
    before = Path("result.json").read_bytes()
    main([*flags(asked), "--lcb-out=lcb.json"])
    assert Path("result.json").read_bytes() == before
    assert "evaluating" not in capsys.readouterr().out


def test_a_set_of_evalplus_is_evaluated_under_its_name(tiny, arguments, tmp_path):
    row = {"task_id": "HumanEval/x", "prompt": "def f(x):\n", "entry_point": "f"}
    row |= {"canonical_solution": "    return x\n", "base_input": [[1]], "plus_input": [[2]]}
    path = tmp_path / "HumanEvalPlus-v0.1.10.jsonl"
    path.write_text(json.dumps(row))
    found = held_out(f"humanevalplus@{path}", tiny[2], 400, DEFAULT_OPTIONS)
    assert (found.title, len(found.problems)) == ("humanevalplus", 1)


def test_it_repeats_with_its_seed(arguments):
    first = evaluate(arguments).json()
    assert evaluate(arguments).json() == first
    assert evaluate(replace(arguments, seed=1)).json()["problems"] != first["problems"]


def test_all_completions_are_one_run_through_few_slots(tiny, arguments):
    """Six of three problems through two slots: each is judged and told once, as it ends."""
    graphdef, params, tokenizer = tiny
    two = held_out(arguments.data, tokenizer, 400, DEFAULT_OPTIONS)
    three = replace(
        two,
        problems=[*two.problems, two.problems[0]],
        statements=[*two.statements, two.statements[0]],
        prompts=[*two.prompts, two.prompts[0]],
    )

    def run(slots):
        told, rows = [], {}
        program = make_evaluation(
            graphdef,
            tokenizer,
            three,
            samples_per_problem=2,
            temperature=1.0,
            max_new_tokens=30,
            batching=Batching(slots=slots, page=8),
        )

        def keep(row, stats):
            assert len(stats.entropy) == row["length"]
            assert (row["problem"], row["sample"]) not in rows
            rows[row["problem"], row["sample"]] = row

        with Judge(Execution()) as judge:
            notice = lambda text, done, total: told.append((text, done, total))
            program(params, jax.random.key(0), judge, keep, notice=notice)
        return rows, told

    rows, told = run(slots=2)
    assert {(text, total) for text, _, total in told} == {(f"evaluating {three.name}", 6)}
    done = [count for _, count, _ in told]
    assert done[0] == 0 and done[-1] == 6 and done == sorted(done) and len(set(done)) > 3
    prompts = [prompt.tokens for prompt in three.prompts]
    engine = Engine(graphdef, temperature=1.0)
    sample = make_sample(engine, samples_per_prompt=2, max_new_tokens=30, pad_id=2)
    rollout, _ = sample(params, prompts, jax.random.key(0))
    assert [rows[divmod(i, 2)]["length"] for i in range(6)] == rollout.length.tolist()
    assert len(set(rollout.length.tolist())) > 1
    length = metrics_of(three, rows, 2, 1)["eval/adding/response_length"]
    assert length == pytest.approx(float(np.mean(rollout.length)))
    again, _ = run(slots=64)
    assert {place: row["completion"] for place, row in again.items()} == {
        place: row["completion"] for place, row in rows.items()
    }


def test_stop_strings_shorten_completions(arguments):
    """Every letter that the tokenizer has a token of its own for ends a completion."""
    letters = tuple(map(chr, range(32, 127)))
    arguments = replace(arguments, max_new_tokens=30)
    whole, stopped = (
        evaluate(one).json()["metrics"]["eval/adding/response_length"]
        for one in (arguments, replace(arguments, stop=letters))
    )
    assert 1 <= stopped < 10 < whole


LONG = {"n": 25, "k": 1, "max_new_tokens": 100, "slots": 4, "out": "result.json"}


@pytest.fixture(scope="module")
def long(tiny_path, tmp_path_factory):
    """Arguments for runs in processes of their own, which take long enough to be stopped."""
    folder = tmp_path_factory.mktemp("long")
    problems = write_problems(folder / "adding.jsonl")
    return Arguments(model=str(tiny_path), data=str(problems), **LONG)


def start(arguments, folder, *more):
    """The command in a folder of its own."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CI": "1"}
    environment["RLIF_CACHE"] = str(Path(arguments.data).parent / "cache")
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    return subprocess.Popen(
        [sys.executable, "-m", "rlif_jax.evaluate", *flags(arguments), *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process, status=0) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def wait_for_lines(path, count, process):
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


FILES = ("result.json", "result.samples.jsonl")


@pytest.fixture(scope="module")
def whole(long, tmp_path_factory):
    """The bytes that a run without interruptions leaves."""
    folder = tmp_path_factory.mktemp("whole")
    finished(start(long, folder))
    return [(folder / name).read_bytes() for name in FILES]


def test_killed_and_resumed_it_leaves_the_same_bytes(long, tmp_path, whole):
    """SIGKILL, then SIGTERM, at any point; no finished sample is drawn again."""
    folder = tmp_path / "killed"
    samples = folder / "result.samples.jsonl"
    process = start(long, folder)
    wait_for_lines(samples, 6, process)
    process.send_signal(signal.SIGKILL)
    finished(process, -signal.SIGKILL)
    left = samples.read_bytes().splitlines()
    assert len(left) < 1 + 2 * LONG["n"] and not (folder / "result.json").exists()
    process = start(long, folder)
    wait_for_lines(samples, len(left) + 5, process)
    process.send_signal(signal.SIGTERM)
    output = finished(process, 130)
    assert "stopped; run the same command to resume from result.samples.jsonl" in output
    between = samples.read_bytes().splitlines()
    assert between[: len(left) - 1] == left[: len(left) - 1]
    output = finished(start(long, folder))
    assert f"resuming after {len(between) - 1}" in output
    assert [(folder / name).read_bytes() for name in FILES] == whole


def test_a_signal_before_sampling_stops_at_once(arguments, monkeypatch, capsys):
    def mesh(*sizes):
        os.kill(os.getpid(), signal.SIGTERM)
        return make_mesh(*sizes)

    monkeypatch.setattr("rlif_jax.evaluate.make_mesh", mesh)
    monkeypatch.setattr(OpenModel, "load", lambda *_, **__: pytest.fail("it was not stopped"))
    with pytest.raises(SystemExit) as stop:
        main(flags(arguments))
    assert stop.value.code == 130
    assert "stopped; nothing was kept" in capsys.readouterr().out


def test_two_processes_on_a_mesh_find_the_same(long, tmp_path, whole):
    """Two devices of each share the rows; the first process writes, the second only helps."""
    address = free_address()
    mesh = ["--mesh.data=4", "--processes.count=2"]
    mesh.append(f"--processes.coordinator={address}")
    folders = [tmp_path / str(i) for i in range(2)]
    pair = [start(long, folders[i], *mesh, f"--processes.index={i}") for i in range(2)]
    for process in pair:
        finished(process)
    assert not list(folders[1].iterdir())
    rows = [
        [json.loads(line) for line in text.splitlines()[1:]]
        for text in ((folders[0] / "result.samples.jsonl").read_text(), whole[1].decode())
    ]
    assert len(rows[0]) == len(rows[1]) == 50
    # Sums that are split over devices round differently: a draw could flip, none does.
    for ours, theirs in zip(*rows, strict=True):
        assert ours["rewards"] == pytest.approx(theirs["rewards"], rel=1e-4, abs=1e-4)
        assert ours | {"rewards": 0} == theirs | {"rewards": 0}


def test_bad_input_is_refused(arguments, tmp_path, capsys):
    undated = str(write_problems(tmp_path / "undated.jsonl", contest_date=""))
    for changes, message in (
        ({"k": 3}, "--k 3 must be at most --n, which is 2"),
        ({"stop": ("a", "")}, "--stop has an empty string"),
        ({"max_prompt_tokens": 3}, "max_prompt_tokens"),
        ({"temperature": 0.0}, "--temperature 0 is greedy.* use --n 1 instead of 2"),
        (
            {"processes": Processes(index=1)},
            "--processes.index 1 must be less than --processes.count, which is 1",
        ),
        (
            {"mesh": Mesh(data=4), "slots": 2},
            "--slots 2 is less than --mesh.data . --mesh.fsdp = 4",
        ),
        ({"mesh": Mesh(data=64)}, "mesh.data=64 "),
        ({"mesh": Mesh(tensor=16)}, "tensor=16 does not divide the model's 4 query heads"),
        ({"mesh": Mesh(data=0)}, "--mesh.data 0 must be at least 1"),
        ({"seed": -1}, "--seed -1 must be at least 0"),
        (
            {"execution": Execution(time_limit_s=-1.0)},
            "--execution.time-limit-s -1.0 must be positive",
        ),
        ({"execution": Execution(workers=0)}, "--execution.workers 0 must be at least 1"),
        ({"max_problems": -1}, "--max-problems -1 must be at least 0"),
        ({"max_new_tokens": 0, "page": 0}, "--page 0 must .* --max-new-tokens 0 must"),
        ({"cache_gib": float("nan")}, "--cache-gib nan must be at least 0"),
        ({"out": "no/such.json"}, "--out no/such.json: there is no folder no; create it first"),
        ({"out": "."}, "--out . is a folder"),
        ({"out": "a.json", "lcb_out": "a.json"}, "are both a.json"),
        ({"lcb_out": "a.json", "data": undated}, "contest dates, and problems of .* have none"),
        ({"data": "starte"}, "starte"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(replace(arguments, **changes))
    assert not list(Path().glob("a.*"))
    evaluate(replace(arguments, out="result.json"))
    with pytest.raises(UserError, match="seed is 1 and was 0"):
        evaluate(replace(arguments, out="result.json", seed=1))
    for text in ("no json", "[" * 100_000):
        Path("none.json").write_text(text)
        with pytest.raises(SystemExit) as stop:
            main(["--compare", "result.json", "none.json"])
        assert stop.value.code == 2
        assert "none.json cannot be read as a result" in capsys.readouterr().err


def test_what_a_mesh_keeps_whole_is_said(arguments, capsys):
    with pytest.raises(UserError, match="asks for 256 devices"):
        evaluate(replace(arguments, mesh=Mesh(data=64, tensor=4), slots=64))
    assert "mesh.tensor=4 exceeds the 2 key/value heads" in capsys.readouterr().out


def test_a_model_whose_numbers_overflow_is_named(arguments, tiny_path, monkeypatch):
    opened = open_model(str(tiny_path))
    load = type(opened).load

    def overflowing(self, *args, **kwargs):
        model = load(self, *args, **kwargs)
        model.final_norm[...] = model.final_norm[...] * np.nan
        return model

    monkeypatch.setattr(type(opened), "load", overflowing)
    with pytest.raises(UserError, match=r"produced NaN or infinity: self_certainty nan"):
        evaluate(replace(arguments, out="result.json"))


def test_one_process_that_fails_ends_all(arguments, tmp_path):
    """A samples file of others on process 0, which the second cannot know."""
    address = free_address()
    asked = replace(arguments, out="result.json")
    for i in range(2):
        (tmp_path / str(i)).mkdir()
    (tmp_path / "0" / "result.samples.jsonl").write_text("[]\n")
    more = ["--mesh.data=2", "--processes.count=2", f"--processes.coordinator={address}"]
    pair = [start(asked, tmp_path / str(i), *more, f"--processes.index={i}") for i in range(2)]
    assert "holds the samples of another evaluation" in finished(pair[0], 2)
    pair[1].communicate(timeout=300)
    assert pair[1].returncode != 0


def test_a_result_compared_with_itself(arguments, capsys):
    main(flags(replace(arguments, out="a.json")))
    capsys.readouterr()
    main(["--compare", "a.json", "a.json"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith("1.0000")]
    assert len(rows) == 12 and sum("avg@2" in row for row in rows) == 3
    assert all("+0.0 (+0.0 to +0.0)" in row.replace("0.000", "0.0") for row in rows)
    fewer = replace(arguments, max_problems=1, out="b.json")
    main([*flags(fewer), "--max-problems=1"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--compare", "a.json", "b.json"])
    assert "1 common ones by --common" in capsys.readouterr().err
    main(["--compare", "a.json", "b.json", "--common"])
    assert "avg@2" in capsys.readouterr().out
