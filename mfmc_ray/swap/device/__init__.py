"""The embedded renderer, and what else is done to pixels, in batches on a device: torch on a GPU, or on a CPU to be checked.

Only `devices` may be imported where there may be no torch.
"""
