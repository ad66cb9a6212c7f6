"""The demonstration: images and loads made on the spot, so that Flyball can be watched at work."""
