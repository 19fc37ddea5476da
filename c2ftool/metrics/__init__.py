"""Scores of clips and of events in time, and the report of a run. Arrays in, plain results out: no models here.

`definitions` names the metrics and says what each is; `results` computes them; `report` writes tables and figures.
"""
