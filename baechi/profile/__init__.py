"""What a machine, an op and a step really take."""
