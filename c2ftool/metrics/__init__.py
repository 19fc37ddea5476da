"""Scores of clips, and the report of a run. Arrays in, plain results out: no torch here.

`definitions` names the metrics and says what each is; `results` computes them; `report` writes tables and figures.
"""
