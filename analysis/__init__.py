"""What the trials mean: finalists, epochs, test figures, the report, the model that ships."""
