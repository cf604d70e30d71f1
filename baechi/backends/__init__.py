"""What runs a plan: one package per framework."""
