"""What plans cost: comparisons with others, and loads with bounds. `campaigns/` has what plans survive."""
