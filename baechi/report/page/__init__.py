"""A report as one HTML file: first what it says, as data; then how it looks."""
