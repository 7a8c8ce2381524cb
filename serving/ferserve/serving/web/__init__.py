"""The pages as files: HTML, CSS and ES modules that browsers run as they stand; `pages` serves them."""
