"""Operations on Proxmox containers."""
