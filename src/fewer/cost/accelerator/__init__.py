"""Accelerators on paper: cycles and joules of machines that one does not own, from closed forms. All of it modelled."""
