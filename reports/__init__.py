"""Words and pictures from a run's directory; computes nothing a record should hold; never loads torch."""
