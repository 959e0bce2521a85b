"""features: what the models see, declared once for training and serving."""
