"""From a person's examples to a judged version of a plugin."""
