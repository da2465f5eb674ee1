"""The tables the thesis published (Versteeg 2022, tables 5.1 to 5.3), as data."""
