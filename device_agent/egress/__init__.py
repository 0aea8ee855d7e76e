"""What leaves the device: counted, written down, and held to the person's policy."""
