"""What a report reads: a run's directory, and what the thesis published."""
