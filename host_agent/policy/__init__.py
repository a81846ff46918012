"""May it: ordered rules and rates."""
