"""What labels, reports and answers say of rows, and since when that was known."""
