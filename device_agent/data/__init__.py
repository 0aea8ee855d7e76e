"""What the person has: texts, examples, questions, and the store they lie in."""
