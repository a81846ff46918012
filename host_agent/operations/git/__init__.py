"""Operations on git repositories, as the unix user of the caller."""
