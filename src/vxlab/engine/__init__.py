"""The engine builds, compares and removes labs; it tells what happens as one stream of events."""
