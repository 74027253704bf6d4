"""What a person sees: events and findings as calm text, in colour only where it carries meaning."""
