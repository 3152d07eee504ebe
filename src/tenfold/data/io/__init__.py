"""Input and output shared by all domains: safe pickles, archives, problems found, recipes."""
