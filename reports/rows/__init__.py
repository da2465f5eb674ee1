"""The rows of the report's CSV files, which the page shows too."""
