"""What data sets exist, where they are found, and one reader for each."""
