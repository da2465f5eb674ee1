"""Numbers, names and colours, formatted in one place."""
