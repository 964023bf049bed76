"""`make conformance`: this project against the vendors' own descriptions, examples and suites."""
