"""Attention of one query a slot over keys and values in pages of a pool."""
