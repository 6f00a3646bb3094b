"""Attention over rows in which whole sequences stand side by side."""
