"""Operations on ZFS datasets and snapshots."""
