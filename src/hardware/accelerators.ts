/** Which graphics cards compute. Pure. */

/** Display controllers, and processing accelerators: PCI Code and ID Assignment, 1.11. */
export const isGraphics = (device: { readonly class: string }): boolean =>
  device.class.startsWith("03") || device.class.startsWith("1200");

/** Vendors whose cards show a screen to a service processor or a guest, and compute nothing. */
const screensOnly: Readonly<Record<string, readonly string[] | "all">> = {
  /** ASPEED, Matrox, XGI, Silicon Motion; HiSilicon's iBMC. */
  "1a03": "all",
  "102b": "all",
  "18ca": "all",
  "126f": "all",
  "19e5": ["1711"],
  /** Bochs and QEMU, Cirrus, QXL, VMware, virtio, Hyper-V, VirtualBox. */
  "1234": "all",
  "1013": "all",
  "1b36": ["0100"],
  "15ad": "all",
  "1af4": ["1050"],
  "1414": "all",
  "80ee": "all",
};

/** A graphics card that a spec counts: not the one behind a service processor's screen. */
export function isAccelerator(card: { readonly vendor: string; readonly device: string }): boolean {
  const known = screensOnly[card.vendor];
  if (known === undefined) return true;
  return known !== "all" && !known.includes(card.device);
}
