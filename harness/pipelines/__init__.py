"""How the work is executed: a part for each stage in which one pipeline differs from another, and the pipelines."""
