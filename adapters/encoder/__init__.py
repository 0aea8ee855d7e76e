"""A text classifier that trains whole, by learner rows of its feed-forward layers, or by biases alone."""
