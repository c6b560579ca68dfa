"""Image classification: data readers, networks for small images, metrics and pages."""
