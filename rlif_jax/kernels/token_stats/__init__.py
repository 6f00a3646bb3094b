"""Certainty statistics of tokens, without logits of the whole vocabulary in memory."""
