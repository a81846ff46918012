"""Operations on Debian packages, from the sources that the host is configured with."""
