"""The report's page, style and script."""
