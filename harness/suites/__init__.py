"""The suites that `bench run --suite` knows, one TOML file each."""
