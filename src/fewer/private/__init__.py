"""Encrypted inference: networks as circuits over CKKS slots, their packing and cost, back ends, client and server."""
