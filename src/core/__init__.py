"""What every other room uses: contracts, configuration, command line, paths, errors."""
