"""What readers of every domain share: safe pickles, archives, problems found, recipes."""
