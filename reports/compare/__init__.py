"""Two runs set against each other: `bench compare`."""
