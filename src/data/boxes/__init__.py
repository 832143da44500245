"""Detection data: VOC, COCO and YOLO annotations."""
