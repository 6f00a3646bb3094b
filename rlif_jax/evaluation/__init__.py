"""Accuracy of a policy on held-out problems: samples, scores, certainty, and their files."""
