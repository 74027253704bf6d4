"""One packet followed through every hop of its way, and what is needed for that."""
