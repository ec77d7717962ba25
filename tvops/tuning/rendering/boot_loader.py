"""Which boot loader a host has, and how its owner adds to the kernel's command line there. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tvops.tuning.host import Host

BootLoader = Literal["grub", "grub with BLS", "systemd-boot", "unknown"]

_SYSTEMD_BOOT = ("/efi/loader/loader.conf", "/boot/efi/loader/loader.conf", "/boot/loader/loader.conf")


def find_boot_loader(host: Host) -> BootLoader:
    """Tell by its files which boot loader a host has; of several, the one that its entries belong to."""
    grub = [path for path in ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg") if host.exists(path)]
    if grub and host.glob("/boot/loader/entries/*.conf"):
        return "grub with BLS"
    if any(host.exists(path) for path in _SYSTEMD_BOOT):
        return "systemd-boot"
    return "grub" if grub or host.exists("/etc/default/grub") else "unknown"


def instructions(loader: BootLoader, pieces: Sequence[str]) -> list[str]:
    """Give the steps that put pieces on the kernel's command line."""
    line = " ".join(pieces)
    if loader == "grub":
        return [
            f"add to GRUB_CMDLINE_LINUX in /etc/default/grub: {line}",
            "then: update-grub   (where there is none: grub2-mkconfig -o /boot/grub2/grub.cfg)",
            "then: reboot",
        ]
    if loader == "grub with BLS":
        return [f"grubby --update-kernel=ALL --args='{line}'", "then: reboot"]
    if loader == "systemd-boot":
        return [
            f"add to /etc/kernel/cmdline: {line}",
            'then: kernel-install add "$(uname -r)" "/lib/modules/$(uname -r)/vmlinuz"',
            "then: reboot",
        ]
    return [f"add to the kernel's command line, as this host's boot loader wants it: {line}", "then: reboot"]
