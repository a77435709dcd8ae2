import { NVME_IOCTL_ADMIN_CMD, SG_DXFER_FROM_DEV, SG_DXFER_NONE, SG_IO } from "./constants.ts";
import { control } from "./descriptor.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import type { OwnedDescriptor } from "./owned-descriptor.ts";

/** A disk that does not answer within this is one that does not answer. Milliseconds. */
const COMMAND_TIMEOUT = 20_000;

export interface NvmeCommand {
  readonly opcode: number;
  readonly namespace: number;
  readonly dword10: number;
  /** Bytes that the controller answers with. */
  readonly answer: number;
}

export type NvmeAnswer =
  | { readonly kind: "answer"; readonly bytes: Uint8Array }
  /** The controller's status: type and code. */
  | { readonly kind: "status"; readonly status: number }
  | { readonly kind: "refused"; readonly errno: number };

/** A command to an NVMe controller, by the device of it or of a namespace: ioctl(2). It blocks. */
export function nvmeAdmin(disk: OwnedDescriptor, command: NvmeCommand): NvmeAnswer {
  const layout = layouts.nvme_passthru_cmd;
  const request = new NativeMemory(layout.size);
  const answer = new NativeMemory(command.answer);
  request.view.setUint8(layout.opcode, command.opcode);
  request.view.setUint32(layout.nsid, command.namespace, true);
  if (command.answer > 0) request.setPointer(layout.addr, answer.address);
  request.view.setUint32(layout.data_len, command.answer, true);
  request.view.setUint32(layout.cdw10, command.dword10, true);
  request.view.setUint32(layout.timeout_ms, COMMAND_TIMEOUT, true);
  const result = control(disk, NVME_IOCTL_ADMIN_CMD, request);
  if (result < 0) return { kind: "refused", errno: -result };
  if (result > 0) return { kind: "status", status: result & 0x7ff };
  return { kind: "answer", bytes: answer.bytes.subarray(0, command.answer) };
}

export interface ScsiCommand {
  readonly block: readonly number[];
  /** Bytes that the disk answers with, at most. */
  readonly answer: number;
}

export type ScsiAnswer =
  | {
      readonly kind: "answer";
      /** As many as came. */
      readonly bytes: Uint8Array;
      /** 0: good. 2: look at the sense data. */
      readonly status: number;
      readonly sense: Uint8Array;
    }
  /** The command did not come to the disk, or nothing came back: of the host's adapter. */
  | { readonly kind: "transport"; readonly host: number; readonly driver: number }
  | { readonly kind: "refused"; readonly errno: number };

/** The driver's status that there are sense data: DRIVER_SENSE. */
const DRIVER_SENSE = 0x08;
const SENSE_BYTES = 64;

/** A command to a SCSI disk, or to an ATA disk behind SCSI: SG_IO. It blocks. */
export function scsiCommand(disk: OwnedDescriptor, command: ScsiCommand): ScsiAnswer {
  const layout = layouts.sg_io_hdr_t;
  const header = new NativeMemory(layout.size);
  const block = new NativeMemory(command.block.length);
  const answer = new NativeMemory(command.answer);
  const sense = new NativeMemory(SENSE_BYTES);
  block.bytes.set(command.block);
  const { view } = header;
  view.setInt32(layout.interface_id, "S".charCodeAt(0), true);
  const direction = command.answer > 0 ? SG_DXFER_FROM_DEV : SG_DXFER_NONE;
  view.setInt32(layout.dxfer_direction, direction, true);
  view.setUint8(layout.cmd_len, command.block.length);
  view.setUint8(layout.mx_sb_len, SENSE_BYTES);
  view.setUint32(layout.dxfer_len, command.answer, true);
  if (command.answer > 0) header.setPointer(layout.dxferp, answer.address);
  header.setPointer(layout.cmdp, block.address);
  header.setPointer(layout.sbp, sense.address);
  view.setUint32(layout.timeout, COMMAND_TIMEOUT, true);
  const result = control(disk, SG_IO, header);
  if (result < 0) return { kind: "refused", errno: -result };
  const host = view.getUint16(layout.host_status, true);
  const driver = view.getUint16(layout.driver_status, true);
  if (host !== 0 || (driver & 0xf & ~DRIVER_SENSE) !== 0)
    return { kind: "transport", host, driver };
  const left = Math.max(0, Math.min(command.answer, view.getInt32(layout.resid, true)));
  return {
    kind: "answer",
    bytes: answer.bytes.subarray(0, command.answer - left),
    status: view.getUint8(layout.status),
    sense: sense.bytes.subarray(0, view.getUint8(layout.sb_len_wr)),
  };
}
