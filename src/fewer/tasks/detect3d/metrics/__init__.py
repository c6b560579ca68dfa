"""How good detections are: KITTI's AP, nuScenes' mAP and NDS, ONCE's AP, and what is missed where."""
