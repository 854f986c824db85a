"""The learning task and the loop that trains it."""
