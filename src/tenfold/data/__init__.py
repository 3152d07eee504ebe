"""Data sets: the catalogue, the search for them on disk, and one reader for each."""
