"""What each paper claims, a module a system."""
