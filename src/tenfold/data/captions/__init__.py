"""Pictures with captions, phrases and boxes: readers of public and of users' own sets."""
