"""What people look at: rows, statistics, tables, figures, the report."""
