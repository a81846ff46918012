"""Operations on systemd units."""
