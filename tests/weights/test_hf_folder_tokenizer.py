"""The tokenizers of model folders, as they fit their models and as they should not be."""

import json

import pytest
from support.changed_folders import EMBED, change_json, refused, words, write_words
from support.family_folders import FAMILIES

from rlif_jax.weights.source import load_model


def test_a_tokenizer_with_more_ids_than_rows_is_refused(untied):
    write_words(untied, words(range(3, 51)))
    assert load_model(str(untied))[0].cfg.reachable == 51
    write_words(untied, words(range(3, 52)))
    refused(untied, "ids up to 51, but the embedding has only 51 rows")


def test_a_tokenizer_with_a_token_added_without_a_row_is_refused(untied):
    change_json(untied / "tokenizer_config.json", pad_token="<pad>", eos_token="<eos>")
    refused(untied, "ids up to 51, but the embedding has only 51 rows", "without resizing")


@pytest.mark.parametrize(
    ("rows", "ids", "fits"),
    [
        (1074, 50, True),
        (1075, 50, False),
        (102_400, 100_015, True),  # deepseek-llm-7b
        (152_064, 151_665, True),  # Qwen2.5-Coder-7B
        (152_064, 128_256, False),  # that model with the tokenizer of Llama 3
    ],
)
def test_a_tokenizer_with_far_fewer_ids_than_rows_is_refused(untied, rows, ids, fits):
    """What fits is only refused for its tensors, which have 51 rows."""
    change_json(untied / "config.json", vocab_size=rows)
    write_words(untied, {"<unk>": 0, "<s>": 1, "</s>": 2, "last": ids - 1})
    if fits:
        refused(untied, f"{EMBED} has shape (51, 16), not ({rows}, 16)")
    else:
        refused(untied, f"has {ids} ids and the embedding {rows} rows", "belongs to another model")


def test_a_tokenizer_with_a_hole(untied):
    """Ids up to the largest one are drawn; those that no word has decode to nothing."""
    write_words(untied, words(range(3, 10)) | {"w40": 40})
    model, tokenizer = load_model(str(untied))
    assert model.cfg.reachable == 41
    assert tokenizer.decode([3, 20, 40]) == "w3 w40"


def test_a_tokenizer_without_an_end_is_refused(untied):
    change_json(untied / "tokenizer_config.json", eos_token=None)
    refused(untied, "no end-of-sequence token", "eos_token in its tokenizer_config.json")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_an_eos_id_that_the_tokenizer_does_not_have_is_refused(untied, name):
    (untied / "generation_config.json").unlink()
    (untied / name).touch()
    config = json.loads((FAMILIES / "llama-default" / "config.json").read_text())
    for eos in (50, [2, 151645]):  # row 50 is padding
        (untied / name).write_text(json.dumps(config | {"eos_token_id": eos}))
        refused(untied, f"eos_token_id {eos if isinstance(eos, int) else 151645}", "50 ids")


def test_a_folder_without_tokenizer_says_which_files(untied):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (untied / name).unlink()
    refused(untied, "fetch tokenizer.json and tokenizer_config.json")


def test_a_tokenizer_without_words_is_refused(untied):
    write_words(untied, {})
    refused(untied, "the tokenizer in", "cannot be read")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"null", b"\xff\xfe", b'{"model": {}}'])
def test_a_damaged_tokenizer_is_refused(untied, content):
    (untied / "tokenizer.json").write_bytes(content)
    refused(untied, "the tokenizer in", "cannot be read", "fetch tokenizer.json")


@pytest.mark.parametrize("content", [b"[]", b"{", b"3", b'{"model_max_length": "x"}'])
def test_damaged_settings_of_a_tokenizer_are_refused(untied, content):
    (untied / "tokenizer_config.json").write_bytes(content)
    refused(untied, "the tokenizer in")


def test_code_in_the_folder_is_not_run_and_nobody_is_asked(untied, monkeypatch, capsys):
    """Neither of a tokenizer nor of a configuration, whatever the settings ask for."""
    ran = untied.parent / "ran"
    (untied / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: pass\n")
    auto = {"AutoTokenizer": ["mine.Mine", "mine.Mine"], "AutoConfig": "mine.Mine"}
    change_json(untied / "tokenizer_config.json", auto_map=auto, tokenizer_class="Mine")
    change_json(untied / "config.json", auto_map=auto)
    assert load_model(str(untied))[1].decode([5]) == "w5"
    (untied / "tokenizer.json").rename(untied / "elsewhere")
    refused(untied, "the tokenizer in", "custom code")
    assert "[y/N]" not in capsys.readouterr().out
    assert not ran.exists()
