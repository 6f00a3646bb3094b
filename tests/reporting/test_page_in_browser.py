"""The page in Chromium: it works by click and by keyboard, asks for nothing, and is accessible."""

import numpy as np
import pytest
from support.reported_runs import arc, completion, write_run

from rlif_jax.reporting.page import Options, render
from rlif_jax.reporting.recorded_runs import read_runs
from rlif_jax.run.token_record import TokenRecord, token_file

HOSTILE = {
    "script": "</script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>",
    "turned": "abc \u202egnp.exe \u2066x\u2069 \u200b\u200f end",
    "long": "a" * 1_000_000,
    "broken": "\ud800 alone, \x00 and \x1b[31m",
}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page of two runs; step 20 of the first has the certainty of its tokens."""
    folder = tmp_path_factory.mktemp("page")
    rows = [
        completion("print(1) 🙂 x", True, sample=0, code="print(1)", reward=2.0),
        completion("nothing", sample=1, id="p2", reward=0.5),
        completion("needle here", sample=2, id="p2", verdict="time_limit", reward=0.25),
    ]
    hostile = [completion(text, id=name) for name, text in HOSTILE.items()]
    runs = [
        write_run(folder / "certain", arc(0.3, 0.0, collapses=True), {1: rows[:1], 20: rows}),
        write_run(folder / "hostile", arc(0.3, 0.1), {20: hostile}, loss__kl_coef=0.1),
    ]
    lengths, ends = [4, 1, 2], [8, 9, 10, 12, 7, 6, 11]
    f16 = np.float16
    record = TokenRecord(
        lengths=np.array(lengths, np.uint32),
        logprob=np.full(7, -np.log(2), f16),
        entropy=np.array([0, 2, 8, 1, 0, 0, 0], f16),
        self_certainty=np.zeros(7, f16),
        probability_disparity=np.full(7, 0.25, f16),
        ends=np.array(ends, np.uint32),
    )
    token_file(runs[0], 20).write_bytes(record.encoded())
    out = folder / "report.html"
    out.write_text(render(read_runs(runs), [], Options()), "utf-8")
    return out


@pytest.fixture
def page(opened, page_file):
    opened.open(page_file)
    yield opened.page
    assert opened.complaints == []
    assert [url for url in opened.asked if url != page_file.as_uri()] == []


def listed(page, count: int) -> None:
    """Wait until so many completions are listed."""
    from playwright.sync_api import expect

    expect(page.locator("#list li")).to_have_count(count)


def test_panels_and_sections_are_there(page):
    assert page.locator("#metrics > .charts figure svg").count() == 3
    assert page.locator("h2").count() == 9
    assert "22.9" not in page.locator("#outcome").inner_text()
    assert "30.0 at best" in page.locator("#outcome").inner_text()


def test_completions_are_chosen_by_click(page):
    assert page.locator("#found").inner_text() == "3 of 3 completions"
    page.locator("#list li").nth(1).click()
    assert page.locator("#detail h3").inner_text() == "p2, sample 1"
    assert page.locator("#completion").inner_text() == "nothing"
    assert "wrong answer" in page.locator("#detail dl").inner_text()


def test_completions_are_chosen_by_keyboard(page):
    page.locator("#list").focus()
    for key, title in (("ArrowDown", "p2, sample 1"), ("End", "p2, sample 2")):
        page.keyboard.press(key)
        assert page.locator("#detail h3").inner_text() == title
    assert page.locator("#list").get_attribute("aria-activedescendant") == "row-2"
    page.keyboard.press("ArrowDown")  # there is no further one
    page.keyboard.press("Home")
    assert page.locator("#detail h3").inner_text() == "p1, sample 0"
    assert page.locator("#list li[aria-selected=true]").count() == 1


def test_search_and_filters(page):
    page.locator("#f-text").fill("NEEDLE")
    listed(page, 1)
    assert page.locator("#completion mark").inner_text() == "needle"
    page.locator("#f-text").fill("")
    listed(page, 3)
    page.locator("#f-verdict").select_option("passed")
    listed(page, 1)
    page.locator("#f-verdict").select_option("")
    page.locator("#f-step").select_option("")
    listed(page, 4)
    page.locator("#f-problem").select_option("p2")
    listed(page, 2)
    page.locator("#f-text").fill("nowhere to be found")
    listed(page, 0)
    assert page.locator("#detail").inner_text() == "No completion is like that."


def test_tokens_are_shaded_by_their_certainty(page):
    tokens = page.locator("#completion .t")
    assert tokens.all_inner_texts() == ["print(1)", " ", "🙂", " x"]
    shade = "e => getComputedStyle(e).getPropertyValue('--a')"
    assert [float(token.evaluate(shade)) for token in tokens.all()] == [0, 0.5, 1, 0.25]
    assert tokens.nth(1).get_attribute("title") == "probability 0.50, entropy 2.01, disparity 0.25"
    page.locator("#detail select").select_option("disparity")
    assert {float(token.evaluate(shade)) for token in tokens.all()} == {0.75}
    page.locator("#list li").nth(1).click()  # the choice stays
    assert page.locator("#detail select").input_value() == "disparity"


def test_a_program_and_a_prompt_unfold(page):
    page.locator("#detail summary", has_text="Program").click()
    assert page.locator("#detail details[open] pre").inner_text() == "print(1)"


def test_hostile_completions_are_text(page):
    page.locator("#f-run").select_option("1")
    listed(page, 4)
    page.locator("#list li", has_text="script").click()
    assert page.locator("#completion").inner_text() == HOSTILE["script"]
    page.locator("#list li", has_text="turned").click()
    shown = page.locator("#completion").inner_text()
    assert shown == "abc U+202Egnp.exe U+2066xU+2069 U+200BU+200F end"
    page.locator("#list li", has_text="long").click()
    assert page.locator("#completion").inner_text() == "a" * 20_000 + " … 980000 characters more"
    page.locator("#list li", has_text="broken").click()
    assert page.locator("#completion").inner_text().endswith(" alone, U+0000 and U+001B[31m")
    assert "hostile" in page.title()


def test_charts_tell_their_numbers(page):
    box = page.locator("#metrics svg").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + 50)
    told = page.locator("#metrics .readout").first.inner_text()
    assert told == "step 20: certain 0, hostile 0.1"
    page.locator(".legend button", has_text="hostile").click()
    assert page.locator("#metrics .method[data-m='1']:not(.off)").count() == 0
    page.mouse.move(box["x"] + box["width"] - 6, box["y"] + 50)
    assert page.locator("#metrics .readout").first.inner_text() == "step 20: certain 0"
    page.locator("#metrics summary").first.click()
    cells = page.locator("#metrics table").first.locator("tbody tr").last.inner_text().split()
    assert cells == ["20", "0", "0.1"]
    with page.expect_download() as saved:
        page.locator("#csv").click()
    lines = saved.value.path().read_text().splitlines()
    assert lines[0] == "metric,method,step,value"
    assert '"starter/avg@4, held out","certain",5,0.3' in lines


@pytest.mark.parametrize("width, scheme", [(1200, "light"), (390, "light"), (390, "dark")])
def test_it_fits_and_is_accessible(chromium, page_file, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = chromium.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.locator("#list li").first.wait_for()
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    page.locator(".numbers table").nth(3).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["target"]) for one in found] == []
    context.close()


def test_it_prints(chromium, page_file):
    context = chromium.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#rollouts").is_visible()
    context.close()
