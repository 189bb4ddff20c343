"""What kwsd costs beside others, measured in the same run. README.md has the commands and the tables."""
