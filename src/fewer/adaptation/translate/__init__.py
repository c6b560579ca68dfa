"""Translators: networks that give an image of one domain the look of the other, and checks that they are safe."""
