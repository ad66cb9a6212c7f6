"""What there is to run: manifest, store, verification."""
