"""Arguments that no plan can beat a time, or that none fits."""
