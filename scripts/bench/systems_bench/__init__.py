"""The ten systems side by side: what their papers claim, what is measured here, and what is not reached."""
