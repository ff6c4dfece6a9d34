"""What one trial is: images, batches, models, training."""
