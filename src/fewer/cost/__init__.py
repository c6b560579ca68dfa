"""What an option costs: arithmetic, bytes, and time or energy measured on this machine."""
