"""How a method is run: in tiles, in half precision, as an exported graph; and what that costs."""
