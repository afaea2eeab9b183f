"""Services: the folder they stand in and the scripts that they run."""
