"""Stand-ins for inspection sets: drawn surfaces and objects, drawn defects, and what scores them."""
