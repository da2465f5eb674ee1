"""One file per attention variant, and one table that names them."""
