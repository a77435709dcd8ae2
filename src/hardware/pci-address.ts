/** Addresses of PCI devices, as the kernel and others write them. Pure. */

/** The PCI address of the device that a place in /sys/devices stands below, the nearest. */
export function pciOf(place: string): string | null {
  const found = place.match(/(?<![^/])[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7](?![^/])/g);
  return found?.at(-1) ?? null;
}

/** nvidia-smi writes "00000000:3B:00.0" for 0000:3b:00.0. */
export function shortDomain(address: string): string {
  return address.toLowerCase().replace(/^0000([0-9a-f]{4}:)/, "$1");
}
