"""Evaluation: what it writes, repeatability, signals, refusals."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from support.small_evaluations import flags, small_arguments
from support.tiny import write_problems, write_tiny_gguf

from rlif_jax.config import Execution, Mesh, ProblemOptions
from rlif_jax.errors import UserError
from rlif_jax.evaluate import evaluate, main
from rlif_jax.evaluation.arguments import Processes
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
    return small_arguments(tiny_path, tmp_path)


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
    found = held_out(f"humanevalplus@{path}", tiny[2], ProblemOptions(max_prompt_tokens=400))
    assert (found.title, len(found.problems)) == ("humanevalplus", 1)


def test_it_repeats_with_its_seed(arguments):
    first = evaluate(arguments).json()
    assert evaluate(arguments).json() == first
    assert evaluate(replace(arguments, seed=1)).json()["problems"] != first["problems"]


def test_samples_of_another_model_in_the_same_place_are_refused(arguments, tiny_path, tmp_path):
    """A checkpoint that was converted anew, a run that was made again: the path is the same."""
    model = tmp_path / "model.gguf"
    shutil.copy(tiny_path, model)
    there = replace(arguments, model=str(model), out="result.json")
    first = evaluate(there).json()
    assert evaluate(there).json() == first
    write_tiny_gguf(model, seed=1)
    with pytest.raises(UserError, match=r"samples of another evaluation: weights is '\w+' and was"):
        evaluate(there)
    samples = tmp_path / "result.samples.jsonl"
    about, *rows = samples.read_text().splitlines()
    older = json.loads(about)
    assert older.pop("weights")
    samples.write_text("\n".join([json.dumps(older), *rows]) + "\n")
    evaluate(there)  # nobody knows


def test_all_completions_are_one_run_through_few_slots(tiny, arguments):
    """Six of three problems through two slots: each is judged and told once, as it ends."""
    graphdef, params, tokenizer = tiny
    two = held_out(arguments.data, tokenizer, ProblemOptions(max_prompt_tokens=400))
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


def test_bad_input_is_refused(arguments, tmp_path, capsys):
    undated = str(write_problems(tmp_path / "undated.jsonl", contest_date=""))
    for changes, message in (
        ({"k": 3}, "--k 3 must be at most --n, which is 2"),
        ({"stop": ("a", "")}, "--stop has an empty string"),
        ({"max_prompt_tokens": 3}, "max_prompt_tokens"),
        ({"temperature": 0.0}, "--temperature 0 is greedy.* use --n 1 instead of 2"),
        (
            {"processes": Processes(index=1)},
            "--processes.index 1 and --processes.coordinator need --processes.count",
        ),
        (
            {"processes": Processes(count=2, index=2, coordinator="host:1")},
            "--processes.index 2 must be less than --processes.count, which is 2",
        ),
        (
            {"processes": Processes(count=2, coordinator="host")},
            "--processes.coordinator 'host' must be the HOST:PORT of process 0",
        ),
        (
            {"mesh": Mesh(data=4), "slots": 2},
            "--slots 2 is less than --mesh.data . --mesh.fsdp . --mesh.context = 4",
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
