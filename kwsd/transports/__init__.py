"""Ways out. One file each; a transport only subscribes to the bus and writes."""
