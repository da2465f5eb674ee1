"""Pictures: figures as inline SVG."""
