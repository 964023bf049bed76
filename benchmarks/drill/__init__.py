"""What an operator meets in a year, in minutes, on a real PostgreSQL and a real Valkey."""
