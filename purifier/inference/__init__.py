"""How a method is run: in tiles, in half precision; and what that costs."""
