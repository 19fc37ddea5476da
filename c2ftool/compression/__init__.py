"""Temporal compression: token grids, and what each method does to the input of a phase."""
