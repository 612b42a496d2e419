"""The page of `purifier app`: attack a picture, purify it, and see what a classifier makes of it."""
