"""Metrics, intervals, plots and the HTML report, all from the files of a workdir and without JAX.

The line: `table` (predictions.csv) -> `metrics` -> `intervals` / `repeats` -> `summary` (metrics.json, terminal table)
-> `panels` (figures with captions) -> `report` (report.html).
"""
