"""Small generators with a known truth, used where no data is found."""
