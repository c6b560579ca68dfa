"""Known defects put into good photos, in the order in which a camera makes them, each with a record of the truth."""
