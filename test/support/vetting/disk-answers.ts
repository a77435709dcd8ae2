/** What disks answer, as bytes: made by us, laid out as the standards have it. */

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function putText(bytes: Uint8Array, offset: number, length: number, text: string): void {
  bytes.set(new TextEncoder().encode(text.padEnd(length).slice(0, length)), offset);
}

export interface NvmeHealthFields {
  readonly criticalWarning?: number;
  readonly kelvin?: number;
  readonly spare?: number;
  readonly spareLeast?: number;
  readonly used?: number;
  readonly hours?: bigint;
  readonly mediaErrors?: bigint;
  readonly logged?: bigint;
}

/** The log page 02h of a healthy disk but for what is named. */
export function nvmeHealthPage(fields: NvmeHealthFields = {}): Uint8Array {
  const page = new Uint8Array(512);
  const at = view(page);
  page[0] = fields.criticalWarning ?? 0;
  at.setUint16(1, fields.kelvin ?? 313, true);
  page[3] = fields.spare ?? 100;
  page[4] = fields.spareLeast ?? 10;
  page[5] = fields.used ?? 2;
  const put128 = (offset: number, value: bigint) => {
    at.setBigUint64(offset, value & 0xffff_ffff_ffff_ffffn, true);
    at.setBigUint64(offset + 8, value >> 64n, true);
  };
  put128(128, fields.hours ?? 1_234n);
  put128(160, fields.mediaErrors ?? 0n);
  put128(176, fields.logged ?? 7n);
  return page;
}

export interface NvmeControllerFields {
  readonly serial?: string;
  readonly hasSelfTest?: boolean;
}

export function nvmeControllerPage(fields: NvmeControllerFields = {}): Uint8Array {
  const page = new Uint8Array(4_096);
  const at = view(page);
  at.setUint16(0, 0x1b36, true);
  putText(page, 4, 20, fields.serial ?? "S64ANX0R");
  putText(page, 24, 40, "A Drive 1T");
  putText(page, 64, 8, "2B2QEXM7");
  at.setUint16(256, fields.hasSelfTest === true ? 0x10 : 0, true);
  page[262] = 62;
  at.setUint16(316, 35, true);
  return page;
}

/** The log page 06h. @param status code of the test in its high half, result in its low one */
export function nvmeSelfTestPage(status: number, running = 0): Uint8Array {
  const page = new Uint8Array(564);
  page[0] = running;
  page[1] = running === 0 ? 0 : 40;
  page[4] = status;
  page[5] = 3;
  view(page).setBigUint64(8, 99n, true);
  return page;
}

export interface AtaRow {
  readonly id: number;
  readonly value?: number;
  readonly threshold?: number;
  readonly raw?: readonly number[];
  readonly prefail?: boolean;
}

/** A sector whose last byte makes their sum zero. */
export function summed(sector: Uint8Array): Uint8Array {
  const sum = sector.subarray(0, 511).reduce((total, byte) => (total + byte) & 0xff, 0);
  sector[511] = (0x100 - sum) & 0xff;
  return sector;
}

export function ataDataSector(rows: readonly AtaRow[], selfTest = 0): Uint8Array {
  const sector = new Uint8Array(512);
  rows.forEach((row, index) => {
    const at = 2 + index * 12;
    sector[at] = row.id;
    sector[at + 1] = row.prefail === true ? 1 : 0;
    sector[at + 3] = row.value ?? 100;
    sector.set(row.raw ?? [], at + 5);
  });
  sector[363] = selfTest;
  sector[372] = 2;
  sector[373] = 0xff;
  view(sector).setUint16(375, 600, true);
  return summed(sector);
}

export function ataThresholdSector(rows: readonly AtaRow[]): Uint8Array {
  const sector = new Uint8Array(512);
  rows.forEach((row, index) => {
    sector[2 + index * 12] = row.id;
    sector[3 + index * 12] = row.threshold ?? 0;
  });
  return summed(sector);
}

export function ataIdentitySector(words: Readonly<Record<number, number>> = {}): Uint8Array {
  const sector = new Uint8Array(512);
  const put = (first: number, count: number, text: string) => {
    const padded = text.padEnd(count * 2);
    for (let index = 0; index < count * 2; index++) {
      sector[first * 2 + (index ^ 1)] = padded.charCodeAt(index);
    }
  };
  put(10, 10, "WD-WCC4N");
  put(23, 4, "82.00A82");
  put(27, 20, "WDC WD40");
  const at = view(sector);
  const told = { 82: 1, 83: 0x4000, 84: 0x4022, 85: 1, 87: 0x4000, ...words };
  for (const [word, value] of Object.entries(told)) at.setUint16(Number(word) * 2, value, true);
  return sector;
}

export function ataSelfTestSector(status: number, kind = 1): Uint8Array {
  const sector = new Uint8Array(512);
  // The newest is the second of the ring.
  sector[2 + 24] = kind;
  sector[2 + 24 + 1] = status << 4;
  view(sector).setUint16(2 + 24 + 2, 4_321, true);
  sector[508] = 2;
  return summed(sector);
}

/** A page of device statistics: values by their offset, each with its flags. */
export function ataStatisticsPage(
  page: number,
  values: Readonly<Record<number, { readonly value: number; readonly flags?: number }>>,
): Uint8Array {
  const sector = new Uint8Array(512);
  sector[2] = page;
  const at = view(sector);
  for (const [offset, { value, flags }] of Object.entries(values)) {
    at.setUint32(Number(offset), value, true);
    sector[Number(offset) + 7] = flags ?? 0xc0;
  }
  return sector;
}

export function inquiryBytes(vendor: string, model: string): Uint8Array {
  const bytes = new Uint8Array(36);
  putText(bytes, 8, 8, vendor);
  putText(bytes, 16, 16, model);
  putText(bytes, 32, 4, "E005");
  bytes[4] = 31;
  return bytes;
}

/** A log page: parameters by their code. */
export function logPage(
  page: number,
  parameters: Readonly<Record<number, readonly number[]>>,
): Uint8Array {
  const body = Object.entries(parameters).flatMap(([code, value]) => [
    Number(code) >> 8,
    Number(code) & 0xff,
    0,
    value.length,
    ...value,
  ]);
  return new Uint8Array([page, 0, body.length >> 8, body.length & 0xff, ...body]);
}

/** Sense data with descriptors, as SAT returns the registers of an ATA command. */
export function ataReturn(middle: number, high: number): Uint8Array {
  const bytes = new Uint8Array(22);
  bytes.set([0x72, 1, 0, 0x1d, 0, 0, 0, 14]);
  bytes.set([0x09, 12], 8);
  bytes[8 + 9] = middle;
  bytes[8 + 11] = high;
  bytes[8 + 13] = 0x50;
  return bytes;
}
