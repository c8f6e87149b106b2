"""Everything that knows time or sockets: wire, link, queue, clock, the two nodes, evaluation."""
