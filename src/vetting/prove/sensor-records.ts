/**
 * Sensor data records for QEMU's management controller (`ipmi-bmc-sim,sdrfile=`): the compact form,
 * type 02h. IPMI 2.0, 43.2.
 */

export interface CompactSensor {
  readonly number: number;
  readonly name: string;
  /** Of which power supply, from 1. */
  readonly supply: number;
  /**
   * "presence" says whether its supply is there at all, and QEMU's says no; one of thresholds says
   * whether one of them is crossed, and QEMU's says no.
   */
  readonly tells: "presence" | "thresholds";
}

/** IPMI 2.0, tables 42-1 to 42-3: type of the sensor, type of its reading, states that it tells. */
const kinds = {
  // Presence, failure, predicted failure, input lost.
  presence: { type: 0x08, reading: 0x6f, states: 0b1111 },
  // What it gives, in whatever unit; its upper thresholds.
  thresholds: { type: 0x08, reading: 0x01, states: 0b111_000 },
} as const;
const powerSupplyEntity = 0x0a;
const nameMost = 16;

/** @throws RangeError for a name that is longer than 16 letters */
export function makeSensorRecords(sensors: readonly CompactSensor[]): Uint8Array {
  return Uint8Array.from(sensors.flatMap((sensor, index) => recordOf(sensor, index + 1)));
}

function recordOf(sensor: CompactSensor, id: number): number[] {
  if (sensor.name.length > nameMost) {
    throw new RangeError(`${sensor.name}: a sensor's name has at most ${nameMost} letters`);
  }
  const kind = kinds[sensor.tells];
  const short = (value: number) => [value & 0xff, value >> 8];
  const body = [
    ...[0x20, 0, sensor.number],
    ...[powerSupplyEntity, sensor.supply],
    // Scanning and events are on at first; it rearms by itself and may be disabled.
    ...[0x67, 0x40, kind.type, kind.reading],
    ...short(kind.states),
    ...short(0),
    ...short(kind.states),
    // Units, records shared, hysteresis, reserved, the maker's own: none of them.
    ...[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    // 8-bit ASCII.
    0xc0 | sensor.name.length,
    ...new TextEncoder().encode(sensor.name),
  ];
  return [...short(id), 0x51, 0x02, body.length, ...body];
}
