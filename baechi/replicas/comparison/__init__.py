"""Methods beside one another on one problem: at equal steps, equal bytes, or equal time."""
