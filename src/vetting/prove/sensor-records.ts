/**
 * Sensor data records for QEMU's management controller (`ipmi-bmc-sim,sdrfile=`): the compact form,
 * type 02h. IPMI 2.0, 43.2.
 */

export interface CompactSensor {
  readonly number: number;
  readonly name: string;
  /** IPMI 2.0, table 42-3: 08h is a power supply. */
  readonly type: number;
  /** A mask of the states that it can tell. */
  readonly states: number;
}

/** IPMI 2.0, table 42-3: presence, failure, predicted failure, input lost. */
export const powerSupplyStates = 0b1111;
export const POWER_SUPPLY = 0x08;
const powerSupplyEntity = 0x0a;
/** Discrete, sensor-specific: table 42-1. */
const SENSOR_SPECIFIC = 0x6f;
const nameMost = 16;

/** @throws RangeError for a name that is longer than 16 letters */
export function makeSensorRecords(sensors: readonly CompactSensor[]): Uint8Array {
  return Uint8Array.from(sensors.flatMap((sensor, index) => recordOf(sensor, index + 1)));
}

function recordOf(sensor: CompactSensor, id: number): number[] {
  if (sensor.name.length > nameMost) {
    throw new RangeError(`${sensor.name}: a sensor's name has at most ${nameMost} letters`);
  }
  const short = (value: number) => [value & 0xff, value >> 8];
  const body = [
    ...[0x20, 0, sensor.number],
    ...[powerSupplyEntity, sensor.number],
    // Scanning and events are on at first; it rearms by itself and may be disabled.
    ...[0x67, 0x40, sensor.type, SENSOR_SPECIFIC],
    ...short(sensor.states),
    ...short(0),
    ...short(sensor.states),
    // Units, records shared, hysteresis, reserved, the maker's own: none of them.
    ...[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    // 8-bit ASCII.
    0xc0 | sensor.name.length,
    ...new TextEncoder().encode(sensor.name),
  ];
  return [...short(id), 0x51, 0x02, body.length, ...body];
}
