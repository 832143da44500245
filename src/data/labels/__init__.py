"""Classification data: folders and CSV files."""
