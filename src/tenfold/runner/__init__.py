"""What the commands do with a system: train, export, judge, demonstrate."""
