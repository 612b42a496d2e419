"""Running methods: tiles, half precision, compilation, export, and measuring time and memory."""
