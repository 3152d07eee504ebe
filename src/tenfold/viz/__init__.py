"""Numbers to pictures and pages: plots, maps, overlays, the page template."""
