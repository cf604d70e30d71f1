"""A process for each device of a plan, over torch.distributed."""
