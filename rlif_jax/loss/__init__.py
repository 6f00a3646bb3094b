"""Advantages and the policy-gradient loss: pure functions."""
