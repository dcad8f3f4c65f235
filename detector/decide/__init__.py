"""Members' scores → one risk → a p-value → which rows are flagged, and which are drawn for an audit."""
