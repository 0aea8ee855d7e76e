"""The cloud side: one frozen backbone for everybody. Knows nothing of anybody's plugin."""
