"""Figures of runs, from what their folders record."""
