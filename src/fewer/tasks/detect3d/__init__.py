"""The task ``detect3d``: boxes of cars, pedestrians and cyclists in LiDAR scans."""
