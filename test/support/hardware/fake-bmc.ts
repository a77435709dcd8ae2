/** A service processor that answers as IPMI 2.0 says, or as badly as a test wants. */
import type { IpmiPort, IpmiReply, IpmiRequest } from "../../../src/hardware/ipmi.ts";

export interface FakeSensor {
  readonly name: string;
  readonly number: number;
  readonly type?: number;
  readonly reading?: number;
  readonly entity?: number;
  readonly instance?: number;
  readonly owner?: number;
  /** null: the controller does not scan it. */
  readonly states: number | null;
  readonly kind?: "full" | "compact" | "event-only";
  /** How many share the record. */
  readonly shared?: number;
}

/** A record of 43.1 to 43.3. */
export function sensorRecord(sensor: FakeSensor, id: number): Uint8Array {
  const { kind = "compact", type = 0x08, reading = 0x6f } = sensor;
  const layout = {
    full: { record: 1, type: 12, name: 47 },
    compact: { record: 2, type: 12, name: 31 },
    "event-only": { record: 3, type: 10, name: 16 },
  }[kind];
  const name = new TextEncoder().encode(sensor.name);
  const record = new Uint8Array(layout.name + 1 + name.length);
  record.set([id & 0xff, id >> 8, 0x51, layout.record, record.length - 5]);
  record.set(
    [sensor.owner ?? 0x20, 0, sensor.number, sensor.entity ?? 10, sensor.instance ?? sensor.number],
    5,
  );
  record.set([type, reading], layout.type);
  if (kind === "compact") record.set([sensor.shared ?? 1, 0x81], 23);
  record.set([0xc0 | name.length, ...name], layout.name);
  return record;
}

export interface FakeBmcOptions {
  readonly sensors: readonly FakeSensor[];
  /** Other records, beside those of the sensors. */
  readonly records?: readonly Uint8Array[];
  readonly hasRepository?: boolean;
  /** The most bytes of a record in one answer. */
  readonly mostBytes?: number;
  /** So many reservations are cancelled before one lasts. */
  readonly cancelled?: number;
  /** The record that each is followed by, where it is not the next one. */
  readonly nextOf?: (index: number) => number;
  /** Before anything else: an answer of one's own. */
  readonly instead?: (request: IpmiRequest) => IpmiReply | undefined;
}

const answer = (...bytes: number[]): IpmiReply => ({
  kind: "answer",
  bytes: new Uint8Array(bytes),
});

export function fakeBmc(options: FakeBmcOptions): IpmiPort & { readonly asked: IpmiRequest[] } {
  const own = options.sensors.map((sensor, index) => sensorRecord(sensor, index));
  const records = [...own, ...(options.records ?? [])];
  const asked: IpmiRequest[] = [];
  let cancelled = options.cancelled ?? 0;
  const getRecord = ([, , low = 0, high = 0, offset = 0, size = 0]: readonly number[]) => {
    if (cancelled > 0) {
      cancelled -= 1;
      return answer(0xc5);
    }
    if (size > (options.mostBytes ?? 32)) return answer(0xca);
    const id = low | (high << 8);
    const record = records[id];
    if (record === undefined) return answer(0xcb);
    const next = options.nextOf?.(id) ?? (id + 1 < records.length ? id + 1 : 0xffff);
    return answer(0, next & 0xff, next >> 8, ...record.subarray(offset, offset + size));
  };
  const getReading = ([number = 0]: readonly number[]) => {
    const sensor = options.sensors.find(
      (one) => number >= one.number && number < one.number + (one.shared ?? 1),
    );
    if (sensor === undefined) return answer(0xcb);
    if (sensor.states === null) return answer(0, 0, 0x80);
    return answer(0, 0, 0xc0, sensor.states & 0xff, 0x80 | (sensor.states >> 8));
  };
  const netFunction = options.hasRepository === false ? 0x04 : 0x0a;
  const reply = (request: IpmiRequest): IpmiReply => {
    const key = `${request.netFunction}/${request.command}`;
    const support = options.hasRepository === false ? 0x01 : 0x03;
    if (key === "6/1") return answer(0, 0x20, 1, 0x02, 0x60, 0x02, support, 0xa2, 2, 0, 0, 1);
    if (key === `${netFunction}/34`) return answer(0, 0x34, 0x12);
    if (key === (netFunction === 0x0a ? "10/35" : "4/33")) return getRecord(request.data);
    return key === "4/45" ? getReading(request.data) : answer(0xc1);
  };
  return {
    asked,
    ask: (request) => {
      asked.push(request);
      return options.instead?.(request) ?? reply(request);
    },
  };
}
