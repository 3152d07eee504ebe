"""The contract, the loop, and what they need; knows no system and no data set."""
