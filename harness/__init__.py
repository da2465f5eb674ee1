"""Everything with side effects: reading images, training, evaluating, writing a run. Start with `run.py`."""
