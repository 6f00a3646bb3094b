"""The page as a file: what it has of which runs, its size, and that nothing in it is markup."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest
from support.reported_runs import arc, completion, write_run
from support.run_folders import write_steps

from rlif_jax.errors import UserError
from rlif_jax.reporting.page import Options, render
from rlif_jax.reporting.recorded_runs import folders_of, read_runs
from rlif_jax.storage.folder import folder_at

VOID = {"meta", "link", "input"}
DRAWN = {"path", "circle"}


class Structure(HTMLParser):
    """Fails where tags do not nest; collects ids and the titles of sections."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in DRAWN

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture
def runs(tmp_path):
    """Two methods with completions, and a run that starts from one of them."""
    rows = [completion("print(1)", True), completion("no")]
    folders = [
        write_run(tmp_path / "certain-s0", arc(0.3, 0.0, collapses=True), {1: rows, 20: rows}),
        write_run(tmp_path / "kl-s0", arc(0.3, 0.1), {20: rows}, loss__kl_coef=0.1),
        write_run(
            tmp_path / "after-s0",
            arc(0.2, 0.3),
            init_from="runs/certain-s0@10",
            reward__terms=[["tests_passed", 1.0]],
        ),
    ]
    return read_runs(folders)


def test_it_has_all_sections_and_nests(runs):
    found = Structure(render(runs, [], Options()))
    assert found.headings == [
        "Outcome",
        "Metrics by step",
        "Sweeps",
        "Runs that start from others",
        "Rewards of correct and of incorrect responses",
        "When policies collapse",
        "Where a step's time goes",
        "Completions",
        "Configuration",
        "How to cite",
    ]
    assert len(found.ids) == len(set(found.ids))


def test_a_bare_run_has_what_there_is(tmp_path):
    run = write_run(tmp_path / "bare", [{"step": 1, "my/own": 2.0}])
    (run / "config.json").unlink()
    found = Structure(render(read_runs([run]), [], Options(keys=["my/own"])))
    assert "Completions" not in found.headings
    assert "panel0-t" in found.ids


def test_a_run_that_starts_from_another_is_drawn_after_its_steps(runs):
    page = render(runs, [], Options())
    start = page[page.index('id="starts"') :]
    lines = re.search(r'class="values">(.*?)</script>', start)[1]
    assert '"n":"after","m":2,"x":[10,15,20,25,30]' in lines
    assert '"n":"certain","m":0,"x":[0,5,10,15,20]' in lines
    assert '"n":"kl"' not in lines


def test_names_are_text_whatever_is_in_them(tmp_path):
    name = "<script>alert(1)<script>"
    run = write_run(tmp_path / name, arc(0.3, 0.1), {1: [completion("x", id="</script><u>")]})
    page = render(read_runs([run]), [], Options(title="<i>"))
    Structure(page)
    assert "<script>alert" not in page
    assert "<u>" not in page
    assert "<i>" not in page


def test_it_asks_for_nothing(runs):
    page = render(runs, [], Options())
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert "default-src 'none'" in page
    assert 'http-equiv="refresh"' not in page
    assert 'http-equiv="refresh" content="30"' in render(runs, [], Options(refresh_s=30))


def test_unknown_metrics_are_refused(runs):
    with pytest.raises(UserError, match=r"--keys a/b: no run has it. .*reward/mean"):
        render(runs, [], Options(keys=["a/b"]))


def test_a_hundred_runs_fit(tmp_path):
    """Of 100 steps each, with completions that do not compress well, under 5 MB."""
    text = "".join(f"{n * n % 9973} " for n in range(400))
    rows = [completion(f"{n} {text[n:]}") for n in range(32)]
    run = write_run(tmp_path / "one", arc(0.3, 0.1, steps=100), {n: rows for n in range(1, 101)})
    (one,) = read_runs([run])
    many = [
        dataclasses.replace(
            one, name=f"run{n}", config={**one.config, "loss.kl_coef": n / 7, "seed": n}
        )
        for n in range(100)
    ]
    page = render(many, [], Options())
    assert 1e5 < len(page) < 5e6
    assert page.count('class="line"') >= 500


def test_runs_in_a_bucket(bucket):
    write_steps(folder_at("gs://runs/study/one"), 1, 2)
    runs = read_runs(folders_of([folder_at("gs://runs/study")]))
    assert [(run.name, run.last_step) for run in runs] == [("one", 2)]
    page = render(runs, [], Options(keys=["reward/mean"]))
    assert 'id="r0-2"' in page
