"""Detection heads, one a file."""
