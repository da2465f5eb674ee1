"""The thesis's claims, put to the test."""
