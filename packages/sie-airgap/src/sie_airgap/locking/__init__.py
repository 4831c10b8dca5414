"""What `lock` puts together: models with all that they need, images, charts, wheels."""
