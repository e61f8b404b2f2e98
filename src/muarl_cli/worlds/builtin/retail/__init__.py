"""A retail order desk."""
