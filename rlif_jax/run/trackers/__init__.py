"""Trackers of runs: TensorBoard, Weights & Biases, MLflow and Trackio, told the same."""
