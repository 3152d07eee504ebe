"""Actions of the commands on a system: train, export, judge, demonstrate."""
