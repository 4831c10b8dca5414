"""From a store or an archive to the far side's bucket and registry."""
