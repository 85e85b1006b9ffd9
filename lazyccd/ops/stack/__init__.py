"""Many frames into one."""
