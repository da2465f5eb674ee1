"""What other tools read of a run: benchmark dashboards and pull requests."""
