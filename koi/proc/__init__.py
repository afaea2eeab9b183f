"""The processes of a node: root, elector, runner and the workers, each one loop around a pure core."""
