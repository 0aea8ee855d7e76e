"""What runs on the device: kits, plugins and the head."""
