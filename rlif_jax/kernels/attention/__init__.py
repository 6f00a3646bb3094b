"""Attention over whole rows of prompts and completions."""
