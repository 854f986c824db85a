"""Cards, reports, tables and plots: the only part that draws and renders."""
