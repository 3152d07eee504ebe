"""What a run leaves for a person: pages, plots, model cards, verdicts."""
