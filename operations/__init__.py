"""What operators may add to the core, which never imports it."""
