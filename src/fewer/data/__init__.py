"""Images in: folders, tensors and loaders become one fixed calibration tensor; real photos; synthetic inputs."""
