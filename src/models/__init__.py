"""Models that others have trained and published: a table, downloads, and their names in ours."""
