"""Any float module to the same network at fewer bits. This room has never heard of speech."""
