"""The page: sentences, tables, pictures, and the file they make."""
