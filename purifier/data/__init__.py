"""Images with what is known about them, and crops of them to train on."""
