import { libc } from "./c-library.ts";
import {
  F_ADD_SEALS,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  MFD_ALLOW_SEALING,
  MFD_CLOEXEC,
} from "./constants.ts";
import { cString } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { check } from "./system-call-error.ts";

/**
 * A file in memory without a path, empty and close-on-exec: memfd_create(2).
 * @param name is shown in /proc alone, and may be another file's as well; at most 249 bytes
 * @throws SystemCallError (EINVAL: the name is too long; ENOMEM, EMFILE)
 */
export function makeMemoryFile(
  name: string,
  options: { readonly allowSealing?: boolean } = {},
): OwnedDescriptor {
  const flags = MFD_CLOEXEC | (options.allowSealing === true ? MFD_ALLOW_SEALING : 0);
  const text = cString(name);
  return new OwnedDescriptor(
    check("memfd_create", libc.memfd_create(text.address, flags), JSON.stringify(name)),
  );
}

/**
 * Nobody changes the file's size any more, nor this: F_ADD_SEALS of fcntl(2). A write beyond its
 * end is refused with EPERM.
 * @throws SystemCallError (EPERM: it was made without `allowSealing`)
 */
export function sealSize(file: OwnedDescriptor): void {
  check("fcntl", libc.fcntl(file.number, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL));
}
