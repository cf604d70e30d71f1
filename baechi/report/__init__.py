"""What a person is told of a plan: pure functions from data to text."""
