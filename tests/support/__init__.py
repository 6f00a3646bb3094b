"""What tests share: small models, tokenizers, servers, files; and where things lie."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
GOLDENS = TESTS / "goldens"
CASES = TESTS / "execution" / "cases"
