"""The recruiting desk."""
