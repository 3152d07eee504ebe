"""Reports of runs for a person: pages, plots, model cards, verdicts."""
