"""What people bring: speech and text in the formats of others."""
