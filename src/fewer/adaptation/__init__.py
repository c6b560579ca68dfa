"""Methods that carry a segmentation from a labelled source domain to an unlabelled target domain."""
