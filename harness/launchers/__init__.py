"""Where cells run: in this process, in processes of this machine, or as jobs of a cluster."""
